"""LeRobot dataset v3 on disk, read and written with pyarrow and PyAV: no lerobot package.

layout.py        meta/info.json, meta/tasks.parquet, meta/episodes/, and where a file lies
table.py         the rows of one episode
packed_video.py  one episode's frames inside a video of many episodes
writing.py       the same files, written
"""
