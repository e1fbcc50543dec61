"""The store made for training: episodes packed into short-group video and columnar labels, as a LeRobot v3 dataset.

settings.py  what frames become: size, codec, group of pictures, episodes of a pack
encode.py    one episode's frames to packets; labels.py  one episode's labels to columns and back
pack.py      a pack of consecutive episodes, staged; assemble.py  staged packs to the finished store
frames.py    single frames by their packets; dataset.py  the store as a Dataset; verify.py  everything read again
"""
