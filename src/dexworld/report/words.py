"""Texts of the demonstration's page, for readers who have not read the paper."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskWords:
    """A task in plain words: title, what the robot has to do and what makes it hard, what is measured."""

    title: str
    story: str = ""
    measure: str = "Distance to the goal"
    paper: float | None = None  # success rate in the DexWM paper, section 5 (another simulator and other scenes)


TASKS: dict[str, TaskWords] = {
    "reach": TaskWords(
        "Reach",
        "The hand starts at rest and has to arrive, in the pose of the goal picture, at the place from which it "
        "could grasp the object.",
        "Hand to goal pose",
        0.72,
    ),
    "grasp": TaskWords(
        "Grasp",
        "The open hand starts beside the object and has to take hold of it. The predictor was never shown a "
        "successful grasp: it has only learned how hands and things move.",
        "Wrist to object",
        0.58,
    ),
    "place": TaskWords(
        "Place",
        "The object is already in the hand and has to be brought to the spot where the goal picture shows it, "
        "without being dropped on the way.",
        "Object to target",
        0.28,
    ),
    "push": TaskWords(
        "Push",
        "An object has to be pushed to another spot. The goal picture shows the hand out of the way, so copying the "
        "hand's pose from it doesn't help: the plan has to come from an idea of how the object will move.",
        "Object to target",
    ),
    "pick_place": TaskWords(
        "Pick and place",
        "The hand starts at rest. It has to take the object, carry it to another spot, let it go there and leave.",
        "Object to target",
    ),
    "push_around": TaskWords(
        "Push around an obstacle",
        "An object has to be pushed to another spot, and another object, which must not be moved, stands in the way.",
        "Object to target",
    ),
    "reach_clutter": TaskWords(
        "Reach past an object",
        "The hand has to arrive in the pose of the goal picture. An object that must not be moved stands on the "
        "straight way.",
        "Hand to goal pose",
    ),
    "grasp_unseen": TaskWords(
        "Lift",
        "The object has to be lifted. The goal picture shows it in the air without the hand, so there is no hand pose "
        "to copy.",
        "Object to target",
    ),
}


def task_words(task: str) -> TaskWords:
    """The texts of a task; a task without any gets its name as title."""
    return TASKS.get(task, TaskWords(task.replace("_", " ").capitalize()))


TITLE = "A robot hand that plans by imagining"
INTRODUCTION = (
    "Below, a simulated robot arm with a four-fingered hand is shown one picture of how the scene should look in the "
    "end. Nobody tells it how to get there. It imagines what different movements would lead to, picks the most "
    "promising one, moves for a second, looks again, and makes a new plan."
)
RAY_NOTICE = (
    "The ray renderer drew these pictures: no OpenGL was found, or it was switched off. Its colours are close to "
    "OpenGL's but not equal, so a model that learned from OpenGL's may do better or worse here than its measured rates."
)
HOW_IT_WORKS = {
    "Imagine": "A world model is a neural network that predicts what the camera will see next if the hand moves in a "
    "certain way. It learned that from recordings of hands moving about, never from solved tasks.",
    "Choose": "Many movements are tried in thought. Geometry says where each would bring the hand, the world model "
    "what else would change. Those whose end looks most like the goal picture survive, and new ones are tried around "
    "them, a few rounds long.",
    "Act, then look again": "The best movement is carried out for one step in a physics simulator that the model "
    "doesn't know. Then everything starts over from what the camera really shows.",
}
SKELETON = "The coloured skeleton is where the model sees wrist and fingertips."
NO_SKELETON = "The model sees no hand in it."
IMAGINED = (
    "Each column is one step. Above: what the model imagined before moving. Below: what the camera saw after the "
    "move. The imagined pictures are coarse because the model thinks in small image patches and not in pixels; what "
    "counts is whether the hand and the object are in the same place."
)
POINTS = (
    "Each column is one step. Above: what the camera saw before the move. The goal has the dots at the crosses. "
    "White lines are the ways that the model expects the dots to be pushed. The glow is how unsure it is of where they "
    "end. Below: what the camera saw after the move."
)
CLICKED = "The goal: the dots should be moved to the crosses."
CLICKED_MEASURE = "Dots to their crosses, as the model sees them"
START = "The start: what the camera sees first."
PIXEL = " Pixel under the pointer: "
CONTROLS = {  # keys of results.json, best first by what they know
    "expert": "Scripted expert",
    "true_simulator": "True simulator",
    "kinematics_only": "Kinematics only",
    "random": "Random motion",
    "do_nothing": "Doing nothing",
}
SUCCESS = (
    "How often the task is solved. With this many episodes the true rate is most likely inside the 95 % interval. The "
    "DexWM paper measured in another simulator with other scenes: an orientation, not a comparison. The other columns "
    "are controls. Whatever they reach too is not the world model's merit: doing nothing and random motion show how "
    "much is luck, kinematics only moves the hand to the goal's hand pose without any model of the world. A search in "
    "the true simulator, which sees the true state, bounds what a small budget can find with a perfect model."
)
OPEN_LOOP = (
    "Here nothing is planned. The model sees a single picture, is told how the hand will move, and predicts four "
    "seconds without looking again. An error of 1 is what the guess “nothing changes” makes; lower is better. As a "
    "control, the model is told the movement of another episode: if it did not use the movement, this would make no "
    "difference."
)
OPEN_LOOP_FIGURES = {  # keys of results.json
    "mse_ratio_1s": "Squared error at 1 s (“nothing changes” is 1)",
    "mse_ratio_4s": "Squared error at 4 s",
    "shuffled_mse_ratio_1s": "Squared error at 1 s, told another movement",
    "shuffled_mse_ratio_4s": "Squared error at 4 s, told another movement",
    "object_mse_ratio_1s": "Squared error at 1 s where objects moved",
    "object_mse_ratio_4s": "Squared error at 4 s where objects moved",
    "mae_avg": "Mean absolute error, average (the paper's “L2”)",
    "mae_4s": "Mean absolute error at 4 s",
    "copy_last_mae_avg": "Mean absolute error of “nothing changes”",
    "pck20_visible_avg": "Visible keypoints within 20 px, average, %",
    "pck20_avg": "Keypoints within 20 px of all twelve (as released), %",
    "pck_released_ceiling": "The most that the previous line can reach, %",
    "pck20_true_latents": "Visible keypoints within 20 px, from true frames, %",
}
