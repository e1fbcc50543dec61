"""The plain-language texts of the pages, in one place, for readers who have not read the paper."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskWords:
    """How a task is told to a stranger: its title, what the robot has to do, and what makes it hard."""

    title: str
    story: str
    paper: float | None = None  # success rate in the DexWM paper, section 5 (another simulator and other scenes)


TASKS: dict[str, TaskWords] = {
    "reach": TaskWords(
        "Reach",
        "The hand starts at rest and has to arrive, in the pose of the goal picture, at the place from which it "
        "could grasp the object.",
        0.72,
    ),
    "grasp": TaskWords(
        "Grasp",
        "The open hand starts beside the object and has to take hold of it. Nothing in the training data shows a "
        "successful grasp: the model has only learned how hands and things move.",
        0.58,
    ),
    "place": TaskWords(
        "Place",
        "The object is already in the hand and has to be brought to the spot where the goal picture shows it, "
        "without being dropped on the way.",
        0.28,
    ),
    "push": TaskWords(
        "Push",
        "An object has to be pushed to another spot. The goal picture shows the hand out of the way, so copying the "
        "hand's pose from it doesn't help: the plan has to come from an idea of how the object will move.",
    ),
}


def task_words(task: str) -> TaskWords:
    """The texts of a task; a task without any gets its name as title."""
    return TASKS.get(task, TaskWords(task.replace("_", " ").capitalize(), ""))


INTRODUCTION = (
    "Below, a simulated robot arm with a four-fingered hand is shown one picture of how the scene should look in the "
    "end. Nobody tells it how to get there. It imagines what different movements would lead to, picks the most "
    "promising one, moves for a second, looks again, and makes a new plan."
)

HOW_IT_WORKS = (
    (
        "Imagine",
        "A world model is a neural network that predicts what the camera will see next if the hand moves in a "
        "certain way. It learned that from recordings of hands moving about, never from solved tasks.",
    ),
    (
        "Choose",
        "Many movements are tried in thought. Geometry says where each would bring the hand, the world model what else "
        "would change. Those whose end looks most like the goal picture survive, and new ones are tried around them, a "
        "few rounds long.",
    ),
    (
        "Act, then look again",
        "The best movement is carried out for one step in a physics simulator that the model doesn't know. Then "
        "everything starts over from what the camera really shows.",
    ),
)

IMAGINED = (
    "Each column is one step. Above: what the model imagined before moving. Below: what the camera saw after the "
    "move. The imagined pictures are coarse because the model thinks in small image patches and not in pixels; what "
    "counts is whether the hand and the object are in the same place."
)

LOOK_AHEAD = (
    "The whole plan at each step. The robot plans anew after every step, so from the second column on it may have "
    "moved otherwise than imagined here, and differences there are not all the model's error."
)

SEARCH = (
    "How the search went: each line is one plan, and lower means that the imagined end is closer to the goal. A line "
    "that falls and then flattens has converged. Costs of different plans have different scales, as fewer steps "
    "remain."
)

SUCCESS = (
    "How often the task is solved. The black bracket is the 95 % interval: with this many episodes the true rate is "
    "most likely inside it. The grey bars are controls. Whatever they reach too is not the world model's merit: "
    "doing nothing and random motion show how much is luck, kinematics only moves the hand to the goal's hand pose "
    "without any model of the world. A search in the true simulator, which sees the true state, bounds what a small "
    "budget can find with a perfect model."
)

PAPER_MARK = (
    "The dashed line is the figure of the DexWM paper, measured in another simulator with other scenes: an "
    "orientation, not a comparison."
)

OPEN_LOOP = (
    "Here nothing is planned. The model sees a single picture, is told how the hand will move, and predicts four "
    "seconds without looking again. An error of 1 is what the guess “nothing changes” makes; lower is better. As a "
    "control, the model is told the movement of another episode: if it did not use the movement, this would make no "
    "difference."
)
