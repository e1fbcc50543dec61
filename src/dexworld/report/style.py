"""The look of every page: one style sheet, light and dark, phone to wide screen, in the system's own fonts."""

STYLE = """
:root {
  --paper: #f7f6f3; --card: #ffffff; --ink: #1d1f23; --soft: #5d626b; --line: #e3e1db; --wash: #efeee9;
  --accent: #2f6fde; --good: #1b8a5a; --good-wash: #e0f3ea; --bad: #bd3b2b; --bad-wash: #fbe7e3; --grey: #a9adb5;
  --second: #d9822b; --shadow: 0 1px 2px rgba(20, 22, 26, .06), 0 6px 24px rgba(20, 22, 26, .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1d2025; --ink: #e9eaec; --soft: #a3a8b1; --line: #32363d; --wash: #262a30;
    --accent: #7aa7ff; --good: #56c596; --good-wash: #173528; --bad: #f08573; --bad-wash: #3d211c; --grey: #6b717b;
    --second: #f0a95c; --shadow: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.6; font-size: 16.5px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 72px; }
header h1 { font-size: clamp(1.9rem, 5vw, 2.9rem); line-height: 1.12; letter-spacing: -.02em; margin: 0 0 .35em; }
header .lead { font-size: 1.16rem; max-width: 46em; }
h2 { font-size: 1.55rem; letter-spacing: -.01em; margin: 2.6em 0 .35em; line-height: 1.2; }
h3 { font-size: 1.1rem; margin: 0; }
h4 { font-size: .95rem; margin: 1.5em 0 .2em; }
.bars h4, .card > h4:first-child { margin-top: .4em; }
p { margin: .5em 0; max-width: 46em; }
.lead { color: var(--soft); }
.note { color: var(--soft); font-size: .9rem; }
a { color: var(--accent); }
code { background: var(--wash); border-radius: 5px; padding: .1em .35em; font-size: .88em; overflow-wrap: anywhere; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px; margin: 18px 0;
  box-shadow: var(--shadow);
}
.head { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; }
.head .note { margin-left: auto; }
.badge { border-radius: 99px; padding: .12em .75em; font-size: .82rem; font-weight: 600; white-space: nowrap; }
.badge.good { color: var(--good); background: var(--good-wash); }
.badge.bad { color: var(--bad); background: var(--bad-wash); }
.badge.quiet { color: var(--soft); background: var(--wash); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.tile strong { display: block; font-size: 1.65rem; line-height: 1.2; letter-spacing: -.02em; }
.tile span { color: var(--soft); font-size: .88rem; }
.steps {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 14px; margin: 16px 0; padding: 0;
}
.steps > div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px; }
.steps p { font-size: .95rem; margin: .3em 0 0; }
.disc {
  display: inline-grid; place-items: center; width: 1.7em; height: 1.7em; border-radius: 50%; margin-right: .5em;
  background: var(--accent); color: var(--card); font-weight: 700; font-size: .85rem;
}
.pictures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 260px), 1fr)); gap: 14px; margin: 14px 0 4px;
}
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .86rem; margin-top: .35em; line-height: 1.4; }
img, video { display: block; width: 100%; height: auto; border-radius: 9px; background: var(--wash); }
.pair {
  display: grid; grid-template-columns: 5.6em repeat(var(--columns), minmax(0, 1fr)); gap: 7px; margin: 10px 0;
}
.pair span { color: var(--soft); font-size: .82rem; align-self: center; line-height: 1.25; }
.pair span.when { text-align: center; }
.pair img { border-radius: 6px; }
.pictures.many { grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); }
.pictures.few { max-width: 760px; }
.scroll { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: .83rem; vertical-align: bottom; }
td { white-space: nowrap; }
td:first-child { white-space: normal; min-width: 6em; }
.numeric { text-align: right; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); gap: 10px 24px; margin: 14px 0;
}
.facts dt { color: var(--soft); font-size: .83rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 12px; border-top: 1px solid var(--line); padding-top: 10px; }
section > details { border-top: none; }
summary { cursor: pointer; color: var(--accent); font-weight: 600; font-size: .95rem; }
.bars { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 18px 44px; }
.bar {
  display: grid; grid-template-columns: 9em 1fr 3.4em; gap: 10px; align-items: center; font-size: .88rem; margin: 5px 0;
}
.bar .name { color: var(--soft); }
.bar.own .name { color: var(--ink); font-weight: 600; }
.bar .value { text-align: right; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 14px; background: var(--wash); border-radius: 4px; }
.fill { position: absolute; inset: 0 auto 0 0; background: var(--grey); border-radius: 4px; }
.own .fill { background: var(--accent); }
.whisker { position: absolute; top: 50%; height: 2px; margin-top: -1px; background: var(--ink); }
.whisker::before, .whisker::after {
  content: ""; position: absolute; top: -4px; width: 2px; height: 10px; background: var(--ink);
}
.whisker::before { left: 0; }
.whisker::after { right: 0; }
.mark { position: absolute; top: -4px; bottom: -4px; width: 0; border-left: 2px dashed var(--second); }
svg.plot { display: block; width: 100%; height: auto; max-width: 620px; font-size: 12px; }
.plot text { fill: var(--soft); }
.plot .axis { stroke: var(--grey); }
.plot .rule { stroke: var(--line); }
.plot .line { fill: none; stroke-width: 2.4; stroke-linejoin: round; stroke-linecap: round; }
.plot .s0 { stroke: var(--accent); }
.plot .s1 { stroke: var(--second); }
.plot .s2 { stroke: var(--grey); }
.plot .s3 { stroke: var(--good); }
.plot .faint { stroke-width: 1.6; stroke-dasharray: 4 4; }
.plot .area { stroke: none; opacity: .15; }
.plot .area.s0 { fill: var(--accent); }
.plot .area.s1 { fill: var(--second); }
.plot .area.s2 { fill: var(--grey); }
.plot .area.s3 { fill: var(--good); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .86rem; color: var(--soft); margin: 6px 0; }
.legend i {
  display: inline-block; width: 22px; height: 0; border-top: 3px solid; vertical-align: middle; margin-right: 7px;
}
.legend .s0 { color: var(--accent); }
.legend .s1 { color: var(--second); }
.legend .s2 { color: var(--grey); }
.legend .s3 { color: var(--good); }
.legend .faint { border-top-style: dashed; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 24px; }
footer {
  margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--line); color: var(--soft); font-size: .88rem;
}
@media (max-width: 560px) {
  body { font-size: 16px; }
  main { padding: 20px 14px 48px; }
  .card { padding: 15px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
  .steps { grid-template-columns: 1fr; }
  .bar { grid-template-columns: 7.5em 1fr 3em; }
  .pair { grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
  .pair span.side { grid-column: 1 / -1; }
  .pair span.corner { display: none; }
}
"""
