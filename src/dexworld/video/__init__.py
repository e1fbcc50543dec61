"""DWM, the video world model: a static scene video and a hand motion become the video of what the hands do."""
