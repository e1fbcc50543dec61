"""Markdown pages of the public classes and functions, out of the docstrings in the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# `keypoints: (T, 42, 3) metres ...` at the start of a sentence says what an argument or field is
_TERM = re.compile(r"(?:^|(?<=[.;] ))([a-z]\w*(?:(?:, | and )[a-z]\w*)*):(?= )")
_CODE = re.compile(r"(`[^`]+`)")
Callable = (ast.FunctionDef, ast.AsyncFunctionDef)


def public(nodes: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The classes and functions among the nodes whose names don't begin with an underscore."""
    for node in nodes:
        if isinstance(node, (ast.ClassDef, *Callable)) and not node.name.startswith("_"):
            yield node


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: lines that explain a name become a list, what isn't code is escaped."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", docstring or ""):
        if block.startswith("    "):
            out.append(f"```text\n{block}\n```")
            continue
        text = " ".join(block.split())
        terms = list(_TERM.finditer(text))
        ends = [term.start() for term in terms] + [len(text)]
        lead = escaped(text[: ends[0]].strip())
        listed = [
            f"- `{term[1]}`: {escaped(text[term.end() : end].strip())}"
            for term, end in zip(terms, ends[1:], strict=True)
        ]
        out += [part for part in (lead, "\n".join(listed)) if part]
    return "\n\n".join(out)


def escaped(text: str) -> str:
    """Text whose asterisks, brackets and angle brackets are no Markdown; what stands in backticks stays as it is."""
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_\[\]<>#|])", r"\\\1", part) for part in parts)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """`def name(arguments) -> result`, one argument a line where it would be long."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = ast.unparse(node.args)
    line = f"{node.name}({arguments}){result}"
    if len(line) <= 90:
        return line
    return f"{node.name}(\n    {_one_a_line(node.args)}\n){result}"


def _one_a_line(arguments: ast.arguments) -> str:
    """The arguments with a line break behind each comma that separates two of them."""
    text, depth, out = ast.unparse(arguments), 0, ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        out += ",\n   " if letter == "," and not depth else letter
    return out


def class_page(node: ast.ClassDef) -> str:
    """A class: its bases and fields as code, its docstring, what its fields mean, its methods."""
    bases = ", ".join(ast.unparse(each) for each in node.bases)
    fields, notes = [], []
    for each, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        if each.target.id.startswith("_"):
            continue
        fields.append(f"    {ast.unparse(each)}")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = " ".join(after.value.value.split())
            notes.append(f"- `{each.target.id}`: {escaped(text)}")
    code = f"class {node.name}{f'({bases})' if bases else ''}" + (":\n" + "\n".join(fields) if fields else "")
    parts = [f"### {node.name}", f"```python\n{code}\n```", prose(ast.get_docstring(node)), "\n".join(notes)]
    for method in public(node.body):
        if isinstance(method, Callable):
            parts += [f"```python\n{signature(method)}\n```", indented(prose(ast.get_docstring(method)))]
    return "\n\n".join(part for part in parts if part)


def indented(text: str) -> str:
    """A method's text as a quotation, so that it can be told from the class's own."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def module_page(path: Path, name: str) -> str:
    """A module with a public class or function: its docstring and each of them; else an empty text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(public(tree.body))
    if not nodes:
        return ""
    parts = [f"## {name}", prose(ast.get_docstring(tree))]
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            parts.append(class_page(node))
        else:
            text = prose(ast.get_docstring(node))
            parts.append(f"### {node.name}\n\n```python\n{signature(node)}\n```\n\n{text}")
    return "\n\n".join(parts)


def api_pages(package: Path) -> dict[str, str]:
    """Markdown of each folder of a package by its dotted name, e.g. `dexworld.models`; the command line is left out."""
    pages: dict[str, str] = {}
    for folder in [package, *sorted(path for path in package.rglob("*") if path.is_dir())]:
        dotted = ".".join((package.name, *folder.relative_to(package).parts))
        modules = sorted(folder.glob("*.py"))
        texts = [module_page(path, f"{dotted}.{path.stem}".removesuffix(".__init__")) for path in modules]
        if any(texts) and folder != package / "cli":
            about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
            pages[dotted] = "\n\n".join([f"# {dotted}", prose(about), *filter(None, texts)]) + "\n"
    return pages
