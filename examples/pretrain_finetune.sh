#!/bin/bash
# Pre-train on simulated video of human hands and of a gripper, fine-tune on the robot hand (docs/training.md).
# Start it again and it goes on where it stopped.
#   examples/pretrain_finetune.sh [FOLDER]                                    some hours on a laptop
#   EPISODES=4 STEPS=10 PRESET=debug examples/pretrain_finetune.sh /tmp/try   a few minutes, to see it run
set -euo pipefail

folder=${1:-outputs/pretraining}
episodes=${EPISODES:-400} # of human hands, and as many of the gripper
steps=${STEPS:-5000}      # of pre-training; fine-tuning takes half as many
preset=${PRESET:-tiny-hands}
seconds=${SECONDS_EACH:-4} # of a video of human hands
mkdir -p "$folder"
cd "$folder"

# Scenes of their own for each collection; below 900,000 is for training, from there for validation.
dexworld collect --output data/human --episodes "$episodes" --seed 20000 human --seconds "$seconds"
dexworld collect --output data/gripper --episodes "$episodes" --seed 30000 gripper
dexworld collect --output data/allegro --episodes $((episodes / 2)) --seed 40000
dexworld collect --output data/allegro-val --episodes $((episodes / 8 + 2)) --seed 900000

dexworld inspect data/human --output inspected/human
dexworld inspect data/gripper --output inspected/gripper

dexworld prepare data/human stores/human --verify True
dexworld prepare data/gripper stores/gripper --verify True

dexworld train --data stores/human stores/gripper --preset "$preset" --windows paper --rate-hz 5 \
  --batch-size 16 --steps "$steps" --output runs/pretrained
dexworld train --data data/allegro --validation-data data/allegro-val --initial runs/pretrained/model --rate-hz 5 \
  --batch-size 16 --steps $((steps / 2)) --learning-rate 3e-4 --output runs/finetuned
