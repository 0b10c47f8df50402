"""Practice stories: write little children's stories, the default text of the course.

    [practice_stories] -> 01_bpe -> 02_prepare -> 03_model -> 04_train -> 05 -> 06
     you are here

A language model learns from text, and this file makes some: as many stories as we
ask for, no download, the same ones on every machine. The idea is the recipe of
TinyStories (Eldan & Li 2023, arXiv 2305.07759) in miniature: choose a few words and
features first (a hero, a thing, a twist, a sad ending), then tell a story around
them. There a large model did the telling; here a grammar does, so it is small enough
to read, and we can say of any story whether it is right (check), and what the lowest
possible loss is (limit).

READS   nothing
WRITES  nothing by itself; stage 01 calls write_corpus() to make its training text
RUN     python lessons/practice_stories.py          three stories
        python lessons/practice_stories.py 5        five stories
        python lessons/practice_stories.py 5 42     five others: 42 is the seed

HOW A STORY IS MADE
  1. Pick a plot. A plot is a block of text further down, PLOTS["the lost toy"] = ...
  2. Draw its slots. The first lines of the block say what is drawn, and from where:
     hero: CHILDREN            one row of the table CHILDREN
     friend: CHILDREN          another row of the table: no row is drawn twice
     near, far: SPOTS          two different rows
     who: loved to sing / ...  one of the choices written here
  3. Tell it, beat by beat. After a blank line come the beats: "=" begins a beat, "|"
     is another wording of the same beat, an indented line continues the line above,
     and a blank line begins a new paragraph. One wording of each beat is picked.
  4. Fill in the slots: {hero} is the name, {Hero} the same with a capital letter,
     {he} {him} {his} are the hero's pronouns, {friend.he} the friend's,
     {a toy} puts "a" or "an" in front, {open} is one of the shared first sentences.

TO ADD A PLOT OF YOUR OWN copy one block, give it a new name and new words, and run
this file. Keep the promise of the others: what is lost is what is found, the first and
the last paragraph name the hero, {he} is the hero, and every filling fits its sentence.
"""

import math
import os
import random
import re
import sys
from collections import Counter, namedtuple
from functools import lru_cache
from os.path import commonprefix
from pathlib import Path
from statistics import fmean
from textwrap import dedent

# ======================================================================================
# CONSTANTS: the words that plots draw from
# ======================================================================================

END_OF_STORY = "<|endoftext|>"  # the line between two stories

# No name ends in s: "Tess's" and "James'" are a lesson of their own.
GIRLS = "Lily Mia Anna Rosa Emma Nora Zoe Ella Lucy Ruby Maya Clara".split()
BOYS = "Tom Ben Sam Max Leo Jack Tim Noah Omar Finn Oscar Hugo".split()

PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "it": {"he": "it", "him": "it", "his": "its", "himself": "itself"},
}


def join_lines(text):
    """Return the text with every indented line joined to the one above it."""
    return re.sub(r"\n +", " ", text)


def table(text, *columns):
    """Turn lines of "red ball | it | was" into rows {"": "red ball", "it": "it", ...}.

    The first column has the empty name: {toy} is that one, {toy.it} another one.
    """
    rows = []
    for line in join_lines(dedent(text).strip()).split("\n"):
        cells = [cell.strip() for cell in line.split("|")]
        rows.append(dict(zip(("", *columns), cells, strict=True)))
    return rows


def words(text):
    """Turn words and phrases with commas between them into rows with one column."""
    return [{"": word.strip()} for word in text.split(",")]


def character(name, pronoun, kind, lives, **more):
    """Make the row of a hero: the name, how to introduce it, how to call it."""
    row = PRONOUNS[pronoun] | more | {"": name, "kind": kind, "lives": lives}
    if name.startswith("the "):
        return row | {"intro": "a" + name[3:], "call": name[4:]}
    return row | {"intro": f"a little {kind} named {name}", "call": name, "name": name}


def characters(lives, text, *columns):
    """Turn lines of "Pip | he | mouse | hole" into rows of heroes."""
    rows = table(text, "pronoun", "kind", *columns)
    return [character(row.pop(""), lives=lives, **row) for row in rows]


TABLES = {
    "CHILDREN": [character(name, "she", "girl", "child") for name in GIRLS]
    + [character(name, "he", "boy", "child") for name in BOYS],
    # name, pronoun, kind, home
    "ANIMALS": characters(
        "animal",
        """
        Pip | he | mouse | hole
        Nutmeg | she | mouse | hole
        Hazel | she | squirrel | nest
        Chip | he | squirrel | nest
        Bruno | he | bear | cave
        Honey | she | bear | cave
        Rusty | he | fox | den
        Ember | she | fox | den
        Clover | she | rabbit | burrow
        Hopper | he | rabbit | burrow
        Bramble | he | hedgehog | nest
        Thistle | she | hedgehog | nest
        Dusty | he | raccoon | den
        Olive | she | raccoon | den
        Benno | he | badger | burrow
        Willow | she | badger | burrow
        Digby | he | mole | tunnel
        Truffle | she | mole | tunnel
        the little mouse | she | mouse | hole
        the little squirrel | he | squirrel | nest
        the little bear | he | bear | cave
        the little fox | she | fox | den
        the little rabbit | he | rabbit | burrow
        the little hedgehog | she | hedgehog | nest
        the little raccoon | he | raccoon | den
        the little badger | she | badger | burrow
        """,
        "home",
    ),
    "TOY HEROES": characters(
        "toy",
        """
        Button | he | cloth bear
        Rosie | she | rag doll
        Captain Tin | he | tin soldier
        Patches | she | cloth cat
        Woolly | he | knitted sheep
        Domino | he | wooden horse
        Pepper | she | cloth rabbit
        Gustav | he | wooden duck
        the little tin robot | it | tin robot
        the little toy train | it | toy train
        the little toy plane | it | toy plane
        the little toy truck | it | toy truck
        """
    ),
    "WISE": words(
        "the old owl, the old turtle, the old toad, the old goat, the old crow, "
        "the old deer"
    ),
    "COLORS": words("red, blue, green, yellow, orange, purple, pink, white, brown"),
    "TOYS": words(
        "ball, kite, toy boat, toy car, drum, spinning top, teddy bear, doll, whistle, "
        "toy train, jump rope, toy rabbit, toy dragon, toy horse, pinwheel, toy bus, "
        "toy elephant, toy whale, yo-yo, puppet"
    ),
    "SPOTS": words(
        "under the bed, behind the couch, in the laundry basket, under the stairs, "
        "behind the door, on the bookshelf, behind the curtain, under the table, "
        "in the bathtub, in the closet, under the rug, on the windowsill"
    ),
    # where, whereto
    "PLACES": table(
        """
        in the park | to the park
        in the garden | to the garden
        in the meadow | to the meadow
        at the beach | to the beach
        at the playground | to the playground
        by the lake | to the lake
        by the river | to the river
        on the hill | to the hill
        at the farm | to the farm
        in the orchard | to the orchard
        """,
        "to",
    ),
    "PLANTS": table(
        """
        pumpkin | It was so big that two children could sit on it.
        sunflower | It was taller than the door and looked over the fence.
        bean plant | It climbed up the wall and looked in at the window.
        melon | It was as round as the moon and as sweet as honey.
        rose bush | It had a hundred flowers, and bees came from far away.
        apple tree | It was a very small one, but it had five leaves and big plans.
        """,
        "result",
    ),
    # then, end: what happens to those who do not listen
    "WARNINGS": table(
        """
        climb the old wall | A stone came loose, and {he} fell into the thorns. | The
          thorns had torn {hero}'s new coat, and nobody could mend it.
        walk on the thin ice | The ice went crack, and both of {his} legs were in the
          cold water. | {Hero} had a bad cold and missed the sleigh ride.
        touch the beehive | The bees came out, all of them, and they were not friendly.
          | {Hero}'s nose was so thick that {he} could not smell the cake.
        ride the wild pony | The pony jumped once, and {he} flew over the fence into the
          mud. | {Hero} had to stay in bed while the others went to the fair.
        swing on the rusty gate | The gate broke, and {he} landed on the hard road. |
          {Hero} had to pay for the gate with all the money from the piggy bank.
        play with the paint in the shed | The can tipped over, and {he} was green from
          head to foot. | The paint did not come off, and {hero} had green hair in the
          class photo.
        run down the steep hill | The hill was too steep for two legs, and {he} rolled
          to the bottom. | {Hero} had a broken arm and could not swim all summer.
        """,
        "then", "end",
    ),
    "SMALL ANIMALS": characters(
        "animal",
        """
        Tiny | he | mouse
        Dot | she | ladybug
        Pea | she | beetle
        Speck | he | ant
        Flick | he | lizard
        Minna | she | mouse
        the little mouse | he | mouse
        the little snail | she | snail
        the little ant | she | ant
        the little cricket | he | cricket
        """,
    ),
    "BIG ANIMALS": words("bear, bull, elk, moose, wild boar, stag, ox, brown horse"),
    # help, done
    "TROUBLES": table(
        """
        The {big} was caught in a net. | {He} pulled at one thread after another until
          there was a hole. | free
        The {big} had a thorn deep in its foot. | {He} crept between the toes and pushed
          the thorn out. | well
        The {big} had a bone stuck between its teeth. | {He} walked right into the mouth
          and pulled the bone out. | well
        The {big} had something in its ear, and it could not stop shaking its head. |
          {He} climbed into the ear and came out with a prickly burr. | well
        The {big} was tied to a tree with a long rope. | {He} crept into the knot and
          pulled it loose from the inside. | free
        """,
        "help", "done",
    ),
    "DOGS": words("Rex, Bingo, Muffin, Waffle, Rocky, Pickle, Scout, Bello, Pancake"),
    # how, turn
    "STAINS": table(
        """
        big brown spot | a cup of coffee fell over | sleepy bear
        dark blue spot | the ink bottle tipped over | blue elephant
        row of paw prints | the cat walked over the paper | caterpillar with a hat
        bright green spot | some spinach slid off a plate | friendly dragon
        sticky red spot | the strawberry jam fell off the table | fat red hen
        yellow spot | the mustard shot out of the tube | lion in pajamas
        gray spot | the dirty water ran over the paper | singing hippo
        """,
        "how", "turn",
    ),
    # food, does
    "BIRDS": table(
        """
        sparrow | bread crumbs | chirped
        robin | worms | sang
        young crow | bits of cheese | cawed
        swallow | flies | chattered
        thrush | cherries | whistled
        finch | seeds | twittered
        dove | corn | cooed
        wren | cake crumbs | trilled
        """,
        "food", "does",
    ),
}

TABLES["FRIENDS"] = [row for row in TABLES["ANIMALS"] if "name" in row]

WHEN = [
    {"": f"One {time}", "low": f"one {time}"}
    for time in ("day", "morning", "afternoon", "Saturday", "fine day")
]

# Half of all stories begin with the same four words, as in the books. All give the name
# twice at once: a model learns to repeat a name at short range first, then at long.
OPENINGS = [
    {"": opening + " {Hero} {who}."}
    for opening in (
        "Once upon a time, there was {hero.intro}.",
        "Once upon a time, {homeland} lived {hero.intro}.",
        "Once upon a time, there lived {hero.intro}.",
        "Once upon a time, {hero.intro} lived {homeland}.",
        "Once upon a time, long ago, there was {hero.intro}.",
        "There once was {hero.intro}.",
        "{Homeland} lived {hero.intro}.",
        "This is the story of {hero.intro}.",
        '"Good morning, world!" said {hero.intro}.',
        # "The little fox" has no {hero.name}, so these three are not for such heroes.
        "Once upon a time, there was a little {kind} called {hero.name}.",
        "{Hero.name} was a little {kind}.",
        "Everyone knew {hero.name}. {Hero} was a little {kind}.",
    )
]
HOMES = {
    "child": words(
        "in a small house by the river, in a yellow house, in a quiet village, "
        "in a big noisy city, on a farm, in a house with a green door, near the sea, "
        "at the end of a long street"
    ),
    "animal": words(
        "in the woods, at the edge of the woods, under an old oak tree, "
        "behind the blue hills, near a quiet pond, in a green valley"
    ),
    "toy": words(
        "in a toy box, on a shelf in the playroom, in a room full of toys, "
        "on a windowsill"
    ),
}

# ======================================================================================
# THE IDEA: plots
# ======================================================================================
#
# One block, one plot. A slot keeps its words through the whole block, and that is what a
# tiny model has to learn: if Tom lost a red kite, it is the red kite that is found, and
# it is Tom who is glad. Words from far back are hard to learn, and so are those that
# begin a paragraph (a token without the space in front). Few plots ask for such words.

PLOTS = {}

PLOTS["the lost toy"] = """
hero: CHILDREN
elder: Mom / Grandma
color: COLORS
toy: TOYS
near, far: SPOTS
found: in the dog's basket / under {his} own pillow / in {his} school bag / at the very
  bottom of the toy box / behind the big flower pot
who: had {a color} {toy} and took it everywhere / owned {a color} {toy} and loved it
  more than anything / played with {a color} {toy} from morning to night

= {open}
= {When}, the {color} {toy} was gone.
| But {when.low}, {hero} could not find the {color} {toy}.
| {When}, {hero} woke up and saw that the {color} {toy} was missing.

= {Hero} looked {near}. There was only dust.
| First {hero} looked {near}, but it was not there.
| "Maybe it is {near}," thought {hero}. But it was not.
= Then {hero} looked {far} and found one old sock.
| Then {hero} looked {far}. There was no {toy}, only a sleepy cat.
| {He} looked {far} too, and found nothing but a button.
= {Hero} sat down on the floor and felt like crying.
| {Hero} was so sad that {his} lip began to shake.
| "I will never see it again," {he} said in a small voice.

= "What is wrong, {hero}?" asked {elder}.
| {Elder} came in and asked, "Why are you so sad, {hero}?"
| {Elder} sat down next to {hero} and asked what was wrong.

= "My {color} {toy} is lost!" said {hero}.
| "I have lost my {color} {toy}," said {hero}.
| "I can't find my {color} {toy} anywhere!" said {hero}.

= "Close your eyes and think," said {elder}. "Where did you play last?"
| "Don't hurry," said {elder}. "Where did you have it last night?"
| Then {elder} smiled. "Let's think together. What did you do yesterday?"

= {Hero} closed {his} eyes and thought hard. Then {he} jumped up and ran.
| {Hero} thought and thought. "Oh!" {he} cried, and ran off.
| {Hero} thought about it for a while. All at once {he} knew!
= There was the {color} {toy}, {found}!
| And there it was: the {color} {toy}, {found}.
| The {color} {toy} was {found}, just where {hero} had left it.

= {Hero} hugged the {toy} and thanked {elder}. From that day on, {hero} put it away
  every night.
| "I found it!" shouted {hero}. That night the {color} {toy} had its own chair next to
  the bed, and {hero} slept well.
| {Hero} laughed. "It was not lost at all," {he} said. "I was just looking with my feet
  and not with my head."
| {Hero} danced around the room with the {toy}. {He} had learned that thinking is
  quicker than running.
"""

PLOTS["taking turns"] = """
hero: CHILDREN
friend: CHILDREN
place: PLACES
color: COLORS
toy: scooter / wagon / tricycle / pedal car / go-cart / bicycle
who: liked to go fast / loved new things / did not like to share / liked to be first

= {open}
= {When}, {hero} and {hero.his} friend {friend} found {a color} {toy} {place}.
| {When}, {hero} went {place.to} with a friend named {friend}. They saw {a color} {toy}
  there.
| {When}, a neighbor left {a color} {toy} {place} for all the children. {Hero} and
  {friend} saw it at the same time.

= "It's mine! I saw it first!" said {hero}.
| "I want to ride it first!" shouted {hero}.
| {Hero} ran to the {toy} and held on to it. "Mine!" {he} said.

= "No, I saw it first!" said {friend}.
| "That's not fair," said {friend}. "I want it too."
| "But I ran faster," said {friend}.
= {Hero} pulled and {friend} pulled.
| They pulled from both sides, and their faces grew red.
| One of them pulled left, and the other pulled right.

= Then there was a loud crack, and a piece of the {toy} fell off.
| Crack! The {toy} fell over, and both of them landed on the ground.
| All at once the {toy} tipped over, and {hero} and {friend} sat in the mud.

= "I'm sorry," said {hero}. "Let's fix it together."
| "This is silly," said {hero}. "Help me, {friend}, and then you can go first."
| {Hero} felt bad. "Sorry, {friend}," {he} said. "I should not have pulled."

= "I'm sorry too," said {friend}. "We can take turns."
| "I'm sorry too," said {friend}. "Let's take turns and count to twenty."
| And {friend} nodded. "One rides, one pushes. Then we change."

= So they mended the {color} {toy} and wiped it clean.
| They worked for a long time, and soon the {color} {toy} was as good as new.
| They put the {color} {toy} back on its wheels and checked every screw.
= The first to ride was {friend}, and {hero} counted out loud. Then it was {hero}'s
  turn.
| {Hero} let {friend} go first. Then {friend} let {hero} go twice.
| First {friend} had a turn, then {hero}, then {friend} again.

= {Hero} found out that waiting was fun too, because {friend} made such funny faces.
| "It is much better with two," said {hero}, and {friend} agreed.
| When it grew dark, {hero} and {friend} walked home together. Sharing is more fun than
  pulling.
| From that day on, {hero} and {friend} shared the {color} {toy}, and they never pulled
  at it again.
"""

PLOTS["lost in the woods"] = """
hero: ANIMALS
wise: WISE
thing: butterfly / dragonfly / bright leaf in the wind / little bird / yellow feather
sign: tall tree with three trunks / stream full of round stones / big white rock / old
  wooden bridge / bush with red berries
smell: warm soup / fresh honey cake / apple pie / sweet clover tea
who: always wanted to see what was behind the next tree / asked a hundred questions a
  day / never looked back / liked to run ahead

= {open}
= {When}, {hero} saw {a thing} and ran after it.
| {When}, {hero} followed {a thing} deep into the woods.
| {When}, {a thing} flew by, and {hero} wanted to catch it.

= On and on ran {hero}, past ferns and over roots. When {he} stopped, nothing looked the
  same.
| The {thing} was fast, and {hero} ran a long way. At last it was gone, and so was the
  path.
| Left, right, left again! Then the {thing} was gone, and {hero} did not know the way
  home.

= "Hello?" called {hero}. "Is anybody there?"
| {Hero} sat down and cried a little.
| "I want to go home," said {hero} softly.

= "Who is making that noise?" said a deep voice. It was {wise}.
| Then somebody coughed behind a bush. It was {wise}.
| "Who are you?" asked {wise}, coming out from behind a log.

= "I'm lost," said {hero}. "I ran and did not look."
| "I lost my way," said {hero}. "Can you help me?"
| {Hero} told {wise} about the {thing} and the long run.

= "What did you pass on your way?" asked {wise}.
| "Think," said {wise}. "What did you see when you ran?"
| Then {wise} nodded slowly. "Do you remember anything?"

= {Hero} thought hard. "I saw {a sign}!"
| "Only one thing," said {hero}. "There was {a sign}."
| {Hero} closed both eyes. "Yes! I saw {a sign}!"

= Soon they found the {sign}, and {hero} knew the rest of the way.
| They walked side by side until they came to the {sign}. "My home is over there!" cried
  {hero}.
| And {wise} knew the place, and soon they saw the {sign}. Behind it, {hero} could see
  the lights of home.

= At home it smelled of {smell}, and there was enough for {wise} too. From then on,
  {hero} looked back now and then, to learn the way.
| At home there was {smell}. {Hero} shared it with {wise} and promised never to run off
  again.
| "Thank you," said {hero}. "Next time I will look where I go." Then {he} ran home,
  where {smell} was waiting.
| {Hero} was home at last. That night {he} dreamed of the {thing}, but in the dream {he}
  waved to it and stayed on the path.
"""

PLOTS["salt for sugar"] = """
hero: CHILDREN
elder: Dad / Grandma
cake: apple pie / chocolate cake / lemon cake / plum cake / carrot cake / cherry pie /
  walnut cake / honey cake
guest: the baker / the mailman / the teacher / the doctor / the farmer / the painter
pet: dog / goat / pig / donkey
who: loved to cook / wanted to be a baker / liked the kitchen better than any other room
  / loved cake

= {open}
= {When}, {hero} wanted to make {a cake} all alone.
| {When}, {hero} said, "Today I will bake {a cake}, and nobody may help me!"
| {When}, {hero} put on a big white apron to make {a cake}.

= "Do you want to read the book first?" asked {elder}.
| "Shall I help you?" asked {elder}.
| {Elder} held out a book. "Here is how to make it, {hero}."

= "No, I know how to do it," said {hero}.
| "No, thank you," said {hero}. "It is easy."
| But {hero} shook {his} head. "I don't need any help."

= {Hero} took flour, eggs and butter and mixed them in a bowl. Then {he} put in three
  cups of sugar.
| {Hero} broke the eggs, poured the milk and spilled the flour. Then {he} put in a lot
  of sugar.
| {Hero} mixed everything with a big spoon. "And now the sugar!" {he} said, and put in
  three big cups.
= At least, {he} thought it was sugar.
| The jar looked just like the sugar jar.
| {He} did not look at the name on the jar.

= That afternoon {guest} came to visit. "What a beautiful {cake}!"
| Just then {guest} came to the door. "May I have some {cake}?"
| The first to try a piece was {guest}. "This looks so good!"
= The guest took a big bite, stopped chewing and turned red.
| Everybody waited while the guest took a bite. "Water!" cried the guest. "Please!"
| But after one bite, the guest drank four glasses of water.

= {Hero} tried a piece too. It was salty! It was not sugar, it was salt.
| {Hero} looked at the jar again. It said SALT in big letters.
| "Oh no," said {hero}. "I used the salt!"

= Only the {pet} liked it salty, and ate every bit. Next time, {hero} tasted the sugar
  first.
| They gave the {cake} to the {pet}, who drank a whole bucket of water afterwards. The
  next day, {hero} made a new one, and it was sweet.
| Then {hero} read a whole cookbook and baked again. It is good to know a lot, but it is
  better to check first.
| From that day on, {hero} always tried a little bit first. And when somebody came to
  visit, there was a glass of water on the table.
"""

PLOTS["the slow seed"] = """
hero: CHILDREN
elder: Grandpa / Uncle Bill
plant: PLANTS
who: did not like to wait / never had any time / wanted everything right away / could
  not sit still

= {open}
= {When}, {elder} gave {hero} a tiny seed.
| {When}, {hero} found a tiny seed in an old flower pot.
| {When}, a bird dropped a tiny seed right in front of {hero}.

= {Hero} made a hole in the garden, put in the seed and gave it water. Then {he} sat
  down and looked at the ground.
| {Hero} planted the seed behind the house, and after lunch {he} went to look. There was
  only dirt.
| So {hero} planted the seed next to the fence. "Grow!" {he} said. The seed did not
  grow.

= "It is broken," said {hero}. "I will dig it up."
| "This seed is too slow!" said {hero}. {He} wanted to dig it out again.
| {Hero} got a spade. "I just want to see if it is still there," {he} said.

= "Please don't," said {elder}. "It is working hard where you can't see it."
| "Stop!" said {elder}. "A seed can't grow when you wake it up all the time."
| "Leave it alone," said {elder}. "You don't grow faster either when I pull your ears."

= So {hero} waited. {He} gave it water, sang a song to it and waited some more.
| So {hero} put the spade away and gave the seed some water every morning.
| {Hero} sighed, but {he} waited, and {he} even learned to wait without sighing.

= Then one warm morning after the rain, there was a small green leaf.
| After many days, a thin green stem came out of the ground.
| And one morning, when {hero} had almost forgotten it, something green was there.

= It grew and grew, and in the end it was {a plant}. {Plant.result}
| All summer long it grew. It was {a plant}! {Plant.result}
| Leaf by leaf it became {a plant}. {Plant.result}

= "It was worth the wait," said {hero}, and {he} saved one seed for the next year.
| {Hero} gave {elder} a big hug. "Good things need time," {he} said.
| "See?" said {elder}. {Hero} laughed and said, "Can I have another seed? A quick one?"
| And that is how {hero} learned to wait, at least a little.
"""

PLOTS["the noise at night"] = """
hero: CHILDREN
elder: Mom / Dad
noise: scratch, scratch / tap, tap, tap / bump, bump / squeak, squeak
maker: a tiny mouse / a lost kitten / a baby owl / a little hedgehog / a wet puppy /
  a young squirrel / a small turtle / a brown rabbit
food: bread / oatmeal / pancakes / cookies / cheese / noodles
where: under the bed / in the closet / behind the curtain / outside the window
who: was afraid of the dark / slept with three blankets and a lamp / was brave all day,
  but not at night / did not like to go to bed

= {open}
= One night, {hero} heard a noise: {noise}.
| One windy night, a noise woke {hero} up: {noise}.
| Late one night, when the house was quiet, {hero} heard it: {noise}.

= It came from somewhere {where}.
| Something was {where}.
| {Hero} held {his} breath. The noise came again, {where}.
= "It is a monster," thought {hero}, "with green teeth and long arms."
| "It must be a ghost," {hero} whispered to {his} pillow.
| {Hero} thought of a dragon, and then of two dragons.
= {He} pulled the blanket over {his} head.
| {He} did not dare to move even one toe.
| {His} heart went as fast as a rabbit.

= "{Elder}!" called {hero}. "Come quick, I heard something!"
| At last {hero} called for {elder}.
| So {hero} jumped out of bed and shouted for {elder}.

= Soon {elder} came with a light. "Let's look together," said {elder}.
| Then {elder} took {hero} by the hand. "Come, we will say hello to it."
| "Things are smaller when you look at them," said {elder}, and turned on the lamp.

= {Hero} was scared, but {he} looked. It was {maker}!
| Slowly, slowly, {hero} looked. There was no monster. There was {maker}.
| {Hero} counted to three and looked. And what was it? It was {maker}!
= It looked at {hero} with big eyes. It was even more afraid than {hero}.
| It was so small, and it was shaking.
| "You are not a monster at all," said {hero}.

= {Hero} gave it {food} and some water, and {elder} made it a bed in a box.
| "Are you hungry?" asked {hero}, and gave it {food}.
| So {elder} got {food}, and {hero} fed the small guest.
= In the morning they let it go, and {hero} waved for a long time.
| The next day they found out where it lived and took it home.
| When the sun came up, it was gone again, and the {food} had vanished too.

= After that, {hero} was not so afraid of the dark. When {he} heard a noise, {he} said,
  "Come in, we have {food}!"
| From that night on, {hero} always looked first and was afraid later, and most of the
  time there was nothing to be afraid of.
| And {hero} learned that a big noise can come from a very small guest.
| "Good night, little monster," {hero} said every evening, and then {he} slept until
  morning.
"""

PLOTS["the boaster"] = """
hero: ANIMALS
friend: FRIENDS
skill: run / hop / skip
goal: to the pond / around the hill / to the big oak / through the meadow
who: was very proud / said, "I am the best!" all day long / loved to win / was quick,
  and told everyone so

= {open}
= "Nobody can {skill} as fast as I can," {hero} said to everyone.
| "Look at me!" {hero} said. "Nobody can {skill} like I do."
| {Hero} could {skill} fast, and everybody in the woods had to hear about it.

= {When}, {friend} had heard enough. "Let's see," said {friend}. "Let's have a race
  {goal}."
| {When}, {friend} said, "I would like to race you {goal}, {hero.call}."
| {When}, the animals planned a race {goal}, and only {friend} dared to race {hero}.

= Now {friend} practiced every morning. {Hero} slept late and ate cake.
| So {friend} practiced in the rain and in the sun, and {hero} lay in the grass and
  talked.
| For a week, {friend} got up early to practice. {Hero} only looked at {himself} in the
  pond.

= Then the big day came, and all the animals sat in a circle.
| On the day of the race, everyone came to watch.
| At last it was time. "Ready, set, go!" called a frog.

= {Hero} waved to the left and bowed to the right, and did not see the mud. Splash!
| {Hero} was so busy waving that {he} tripped over {his} own feet.
| "Watch this!" cried {hero}, looked back to see who was watching, and ran into a bush.
= And {friend}? {Friend} did not wave. {Friend} went all the way {goal}, and won.
| {Friend} did not look left or right, and {friend} won.
| When {hero} got up again, {friend} had already won.

= {Hero} looked at the ground. "You were better," {he} said. "Will you show me how you
  practice?"
| It was hard to say, but {hero} said it: "You won, and you were good."
| "I talked too much," said {hero}. "Can we practice together?"

= From then on, {hero} and {friend} practiced together every morning, and {hero} talked
  only half as much.
| The next morning, {hero} got up early too. Big words do not win, but work does.
| So they became friends. And when {hero} said "I am the best," {hero.he} said it very
  quietly, and only to a tree.
"""

PLOTS["the cardboard ship"] = """
hero: CHILDREN
elder: Mom / Aunt May
ship: ship / rocket / castle / train / submarine
land: the land of the polar bears / an island of parrots / the moon / the bottom of the
  sea / a jungle full of monkeys / the top of a cloud
snack: crackers / grapes / cookies / apple slices / raisins / popcorn
who: could not stand being bored / hated rainy days / liked to go outside / had no
  brothers and no sisters

= {open}
| One rainy day, {hero.intro} stood at the window. {Hero} {who}.
| {open} One Sunday, {hero} stood at the window.
= It rained and rained, and {hero} had nothing to do.
| The rain drummed on the roof, and {hero} could not go out.
| But outside the rain came down like a river.

= "I'm bored," said {hero}. "So bored that my hair hurts."
| "There is nothing to do," said {hero}, and lay on the floor like a rug.
| {Hero} sighed so loudly that the curtains moved. "I'm bored!" {he} said.

= {Elder} brought a big empty box. "Then you will need this," said {elder}.
| "I have something for you," said {elder}, and put a big empty box on the floor.
| {Elder} only smiled and pushed a big cardboard box into the room.

= "That's just a box," said {hero}.
| "But that is only a box," said {hero}.
| {Hero} looked into it. It was empty. "There is nothing in it!" {he} said.

= "Is it?" asked {elder}. "Look again."
| "That depends on who sits in it," said {elder}.
| "There is room for a captain in it," said {elder}.

= {Hero} climbed in. And then, all at once, it was not a box. It was {a ship}!
| {Hero} drew buttons and a window on it, and now it was {a ship}.
| {Hero} sat down in it and closed {his} eyes. When {he} opened them, the box was
  {a ship}.
= "All aboard!" shouted {hero}, and off they went to {land}.
| Three, two, one, go! Soon {hero} was on the way to {land}.
| {Hero} turned a wheel that nobody else could see and went all the way to {land}.

= It was cold there, and {hero} had to eat all the {snack} to stay strong.
| There {hero} met a very polite king, and they shared the {snack}.
| On the way there was a terrible storm, and only the {snack} saved {hero}.

= "Come aboard!" called {hero} to the cat. "There is a seat for you!"
| The cat came aboard too and had to be first mate.
| Then {elder} came in with a spoon in one hand and had to be first mate.

= When they came back, the sun was out, but {hero} did not see it. {He} was already
  planning the next trip.
| "The rain has stopped," somebody called. "Not now," said {hero}. "We are almost home."
| In the evening {hero} slept in the box, and nobody said that it was only a box.
| After that, {hero} was happy when it rained, because a box was never just a box.
"""

PLOTS["the toy in the rain"] = """
hero: TOY HEROES
owner: CHILDREN
place: PLACES
helper: brown dog / gray cat / young goat / black pony / hungry fox / young badger
spot: under a bench / in the tall grass / next to a puddle / behind a bush
who: belonged to {owner} / went everywhere with {owner} / slept in {owner}'s bed every
  night / knew all of {owner}'s secrets

= {open}
= {When}, they played {place} until the clouds came. {Owner} ran home and forgot {hero}.
| {When}, {owner} took {hero} {place.to}. But when it began to rain, {owner} ran home
  alone.
| {When}, {owner} fell asleep on the way home, and nobody saw that {hero} was still
  {place}.

= So {hero} lay {spot} and got wet.
| {Hero} was left behind, {spot}, and it was cold there.
| There {hero} was, {spot}, all alone.

= Then {a helper} came along. "What are you?" asked the {helper}. "Can I eat you?"
| In the middle of the night {a helper} stopped and sniffed. "Are you food?" asked the
  {helper}.
| Something warm touched {hero}. It was {a helper}. "Are you good to eat?" it asked.

= "No," said {hero}. "I taste like dust. But I have a friend, and I want to go home to
  {owner}."
| "Please don't," said {hero}. "I am a toy, and {owner} can't sleep without me."
| "I am not food, I am a friend," said {hero}. "I belong to {owner}."

= The {helper} thought about it for a while. "I would like to have a friend too," it
  said.
| "A friend," said the {helper}. "That sounds even better than supper."
| The {helper} had never had a friend. "Show me the way," it said.
= Very carefully it picked {hero} up and carried {him} all the way to the house.
| So the {helper} carried {hero} through the rain, over the bridge and down the road.
| It took {hero} gently in its mouth and walked until they saw a light.

= In the morning {owner} opened the door, and there was {hero} on the mat, next to the
  {helper}.
| In the morning {owner} was standing at the window and crying. Then {owner} saw {hero}
  and ran outside.
| Then the door flew open. "There you are!" cried {owner}, and {hero} was hugged until
  the water ran out.
= Since there was room for one more, the {helper} stayed for breakfast. And {hero} now
  had two friends.
| {Owner} dried {hero} by the stove and never left {him} behind again. The {helper} came
  to visit every Sunday.
| The {helper} got a whole bowl of soup, and {hero} had a story that no other toy could
  tell.
"""

PLOTS["too many sweet things"] = """
hero: ANIMALS
friend: FRIENDS
fruit: blackberries / plums / cherries / pears / raspberries / blueberries /
  strawberries / apples / peaches
who: was always hungry / ate a lot and shared very little / dreamed of food, even in the
  daytime / never knew when to stop

= {open}
= {When}, {hero} found a place that was full of ripe {fruit}.
| {When}, {hero} smelled something sweet. Behind the hill there were more {fruit} than
  anyone could count.
| {When}, {hero} came home with a huge basket of {fruit}.

= {Friend} came by and asked, "May I have some {fruit} too?"
| "Oh, what fine {fruit}!" said {friend}. "Will you give me some?"
| Soon {friend} came along the path. "I love {fruit}," said {friend}. "Are they all
  yours?"

= "No," said {hero} with a full mouth. "I found them, so I will eat them."
| "They are all mine," said {hero}, and sat down in front of them.
| {Hero} looked at the {fruit}. "I am sorry," {he} said, "but there are only enough for
  me."

= So {friend} went away without any, and {hero} began to eat.
| And {friend} went home, a little sad, and {hero} ate and ate.
| But {friend} only said, "Be careful, {hero.call}." Then {hero} was alone with the
  {fruit}.
= {He} ate ten, and then twenty, and then {he} stopped counting.
| {He} ate until the sun went down, and then {he} licked {his} paws.
| "One more," said {hero}, again and again. "Just one more."

= Then the pain came. {Hero} rolled from side to side and said, "Oh, my belly!"
| That night {hero} did not sleep. {His} belly hurt, and nobody was there to help.
| "Oh, oh, oh," said {hero}. {He} could not walk home and had to sleep in the cold
  grass.
= In the morning {friend} brought {him} some mint tea. "I don't even like you today,"
  said {friend}, "but you look so green."
| {Friend} heard it and came with a hot stone and a blanket.
| {Friend} found {hero} there, shook {friend.his} head and made some tea.

= For three days {hero} ate nothing but thin soup. And for the rest of the summer, there
  were no {fruit}.
| "I should have shared," said {hero}. But now there was nothing left to share.
| It took {hero} a week to feel well again. After that, {he} never looked at {fruit}
  with the same eyes.
| The next year, {hero} called {friend} first. "Half for you and half for me," {he}
  said, "and please stop me when I am full."
"""

PLOTS["the broken thing"] = """
hero: CHILDREN
elder: Mom / Dad
thing: blue vase / glass bowl / big teapot / painted plate / glass lamp / sugar bowl /
  picture frame
toy: ball / toy plane / hoop / skateboard / jump rope
pet: cat / dog / parrot / rabbit
who: was not allowed to play ball in the house / had a lot of energy / never walked when
  {he} could run / liked to try things out

= {open}
= {When}, {hero} played with {a toy} in the living room. Crash! The {thing} lay on the
  floor in a hundred pieces.
| {When}, {hero} took the {toy} into the house, and it hit the {thing}. The {thing} fell
  down and broke.
| {When}, when nobody was looking, {hero} played with {a toy} next to the {thing}. The
  {thing} wobbled, fell down and broke.

= Quickly {hero} pushed the pieces under the rug.
| {Hero} swept up the pieces and hid them in a drawer.
| {Hero} put the pieces into a bag and hid the bag behind the couch.

= "Where is the {thing}?" asked {elder} in the evening.
| At supper {elder} asked, "Has anybody seen the {thing}?"
| "That's funny," said {elder}. "The {thing} was here this morning."

= "It was the {pet}," said {hero} quickly.
| {Hero} looked at {his} shoes. "The {pet} broke it," {he} said.
| "I think the {pet} did it," said {hero}, and {his} ears grew hot.

= So the {pet} had to stay outside, and it looked in at the window with sad eyes.
| "Bad {pet}!" said {elder}. The {pet} did not understand and went into its corner.
| The {pet} got no treat that evening. It sat there and looked at {hero}.
= {Hero} could not eat. The lie felt like a stone in {his} belly.
| In bed {hero} turned to the left and to the right. {He} could not sleep.
| {Hero} tried to read, but the letters all looked like little pieces of glass.

= At last {he} went to {elder}. "It was me," {he} said. "I broke the {thing}, and I
  lied."
| "It was not the {pet}," {he} said to {elder}. "I did it, and I am so sorry."
| Then {hero} took a deep breath and told {elder} everything.

= For a while {elder} was quiet. "I liked the {thing}," said {elder}, "but I like the
  truth much more."
| "Thank you for telling me," said {elder}. "That was harder than breaking it."
| Of course {elder} was angry about the lie, but not for long. "You were brave just
  now," said {elder}.

= The next day, {hero} helped to glue the {thing}, and it had funny lines all over. And
  the {pet} got two treats.
| {Hero} went to the {pet} and said sorry. The {pet} forgave {him} at once, and all was
  well.
| {Hero} gave the {pet} half of {his} cookie. From that day on, {hero} played outside
  and stayed with the truth.
"""

PLOTS["the warning"] = """
hero: CHILDREN
elder: Dad / Grandma
thing: WARNINGS
friend: the neighbor's cat / the black crow / the old rooster / the fat pigeon
who: did not listen / thought that rules were for other people / always said, "Yes,
  yes," and did what {he} wanted / was not afraid of anything

= {open}
= {When}, {elder} said, "Please don't {thing}, {hero}. It is not safe."
| "You may play outside," said {elder} {when.low}, "but don't {thing}."
| "There is only one rule today," {elder} told {hero}. "Nobody may {thing}."

= "Yes, yes," said {hero}, and did not really hear it.
| {Hero} nodded, but {he} was already looking out of the window.
| "Why not {thing}?" thought {hero}. "I am big and strong."

= Only {friend} was watching. "I would not do that," said the look on its face.
| On the fence sat {friend} and watched.
| Nobody was there but {friend}.
= {Hero} just had to {thing}. "See?" {he} said. "It is easy!"
| Nothing could stop {hero}. It was wonderful to {thing}, for one moment.
| "I will {thing} just once," said {hero}, and {he} did.

= {Thing.then}
| But then it happened. {Thing.then}
| It did not go well. {Thing.then}
= "Help!" cried {hero}. It took a long time until anybody came.
| {Hero} called for {elder} as loudly as {he} could.
| {Hero} was very scared and cried all the way home.

= At home {elder} washed {hero}'s face and put {hero} to bed. "I did not say it to be
  mean," said {elder}.
| But {elder} did not say one angry word, and that was hard to bear.
| "Oh, {hero}," said {elder}, and got a towel and some bandages.
= {Thing.end}
| And that was not all. {Thing.end}
| The worst part came later. {Thing.end}

= {Hero} thought about it for a long time. Some rules are there because somebody loves
  you.
| "Next time I will listen," said {hero}, and {he} meant it.
| After that, when {elder} said something, {hero} listened with both ears.
"""

PLOTS["the new child"] = """
hero: CHILDREN
friend: CHILDREN
subject: a horse / a house with a red roof / a big whale / a circus tent / a family of
  bears / a ship with three sails / a garden with bees
color: red / blue / green / yellow / purple / brown
who: had just moved to a new town / was very shy / spoke so softly that few people heard
  it / knew nobody at the new school

= {open}
= On the first day of school, {hero} sat in the last row and said nothing.
| On Monday {hero} went to the new school. All the others knew each other, and {hero}
  knew only the door.
| At school {hero} looked for a place in the corner and hoped that nobody would ask
  anything.

= Then the teacher said, "Today we will draw." {Hero} began to draw {subject}.
| In art class everybody had to draw something. {Hero} drew {subject}.
| When it was time to paint, {hero} forgot to be afraid and painted {subject}.
= It was almost done, but there was no {color} left.
| Only one thing was missing: {his} {color} crayon was gone.
| Then {his} {color} crayon broke and rolled under a desk.

= Somebody tapped {hero} on the arm. It was {friend}. "You can have mine," said
  {friend}.
| "Do you need {color}?" asked {friend}, who sat at the next desk.
| At the next desk sat {friend}. {Friend} held out {a color} crayon and smiled.

= "Thank you," whispered {hero}. It was the first thing {he} had said all day.
| {Hero} wanted to say something nice, but all that came out was, "Oh!"
| "Th-thank you," said {hero}, and {his} face was as red as a tomato.

= "Wow," said {friend}, "you draw so well! Can you show me how?"
| Then {friend} looked at the picture. "That is the best picture in the whole class!"
| "How do you do that?" asked {friend}. "I can only draw potatoes."

= {Hero} showed {friend} how to do it, line by line, and they laughed a lot.
| So {hero} drew one more for {friend}, and {friend} told {hero} all the names in the
  class.
| {Hero} laughed. {He} moved {his} chair a little closer and explained it.

= "How was it?" asked Mom in the evening. "There is somebody called {friend}," said
  {hero}, and {he} did not stop talking until bedtime.
| On Tuesday {hero} did not sit in the last row. {He} sat next to {friend}.
| Some friends begin with a big hello. {Hero} and {friend} began with {a color} crayon.
| That night {hero} hung the picture over {his} bed. Under it {friend} had written: very
  good!
"""

PLOTS["the long scarf"] = """
hero: ANIMALS
friend: FRIENDS
color: COLORS
wool: scarf / blanket / shawl
other, third: duck / sparrow / lamb / crow / beaver / goose / pony / otter
who: was always cold / did not like the winter / liked warm things / could knit better
  than anybody else

= {open}
= When the first snow came, {hero} knitted {a color} {wool}. It was long and very soft.
| In the winter, {hero} got {a color} {wool}. It was the warmest thing in the whole
  valley.
| It was a hard winter, but {hero} had {a color} {wool} and smiled at the snow.

= On the way to the pond {hero} met {friend}, who was shaking from head to foot.
| Then {hero} saw {friend} sitting in the snow. {Friend}'s teeth were chattering.
| Under a bare tree sat {friend}, and {friend.his} nose was blue.
= "I have nothing warm," said {friend}. "The wind took it all."
| "I am so cold," said {friend}, "that I can't feel my tail."
| "Do you have a little room in there?" asked {friend}.

= {Hero} looked at the {wool}. It was hard to give some of it away.
| At first {hero} wanted to say no. But then {he} looked at {friend} again.
| "It is only big enough for one," thought {hero}. But was that true?
= "Come under it," said {hero}, and {he} wrapped it around them both.
| "There is room for two," said {hero}, and {friend} moved close.
| {Hero} put one end of it around {friend}. It was still long enough.

= {A other} saw them. "Is there room for me?" So the {other} came in too.
| Soon {a other} came by, as cold as ice, and they let it in.
| Then they heard a sneeze. It was {a other}, and it needed a warm place too.
= After that came {a third}, and now it was very tight in there.
| And when {a third} asked, nobody said no.
| Behind it stood {a third}. "Come in, come in!" they all said.

= They could only walk in step. Left, right, left, right!
| When one of them wanted to turn around, they all had to turn around.
| It looked like an animal with four heads and far too many feet.

= That winter {hero} was never cold again. Wool warms one, but friends warm everyone.
| "It is strange," said {hero}. "I gave half of it away, and now I am twice as warm."
| When spring came, they gave the {wool} back to {hero}. It had many holes, and every
  hole was a story.
"""

PLOTS["the forgotten birthday"] = """
hero: CHILDREN
friend: CHILDREN
elder: Mom / Dad
gift: bicycle / guitar / telescope / tent / fishing rod / paint box / pair of skates /
  little drum / toy castle
hide: in the barn / in the garage / in the attic / in the old shed / in the cellar
who: could not wait to grow up / had counted the days for weeks / loved parties / was
  almost one year older

= {open}
= It was {hero}'s birthday. {He} ran down the stairs, but there was no cake and no song.
| On {his} birthday {hero} woke up early. The kitchen was quiet, and nobody sang.
| "It's my birthday!" thought {hero} and jumped out of bed. But it was a day like any
  other.

= "Good morning," said somebody behind the newspaper.
| "Please eat your oatmeal," somebody told {him}. That was all.
| All that anybody said was, "Don't forget your jacket."

= So {hero} went to see a friend, {friend}. But {friend} said, "I have no time to play
  today."
| At the corner {hero} met a friend, {friend}. "Sorry, I am busy," said {friend}, and
  ran away.
| {Hero}'s best friend, {friend}, was sure to remember! But {friend} only waved and
  closed the window.
= "They have all forgotten me," {hero} said to a snail.
| {Hero} sat down on a step and let {his} head hang.
| Even the birds seemed to sing for someone else.

= In the afternoon {elder} called, "{Hero}, can you get me the hammer? It is {hide}."
| Then {elder} asked {hero} to get the broom. "It is {hide}," said {elder}.
| "Would you look for the cat?" said {elder} later. "I think it is {hide}."
= {Hero} went slowly and opened the door. It was dark in there.
| With a long face, {hero} went to look. It was strangely quiet.
| {Hero} did not feel like it, but {he} went. Somebody giggled.

= "Surprise!" shouted twenty voices. The lights went on, and there was {friend} with a
  huge cake.
| "Surprise!" All the friends jumped up, and {friend} jumped highest of all.
| Then everybody began to sing. There were balloons, a cake, and {friend} with a
  trumpet.

= In the middle stood {a gift} with a ribbon around it. It was just what {hero} had
  wished for.
| And there was {a gift}, the very one that {hero} had wanted for so long.
| Twenty hands pushed {hero} to a big package. It was {a gift}!
= {Hero} laughed and cried at the same time. "This is the best birthday of all!" {he}
  said.
| {Hero} blew out all the candles and had no wish left.
| "Next year I will forget my birthday by myself," said {hero}, "and then we can do it
  all again."
"""

PLOTS["the two who quarreled"] = """
hero: ANIMALS
friend: FRIENDS
food: a big round cheese / a whole honey cake / a huge pumpkin / a warm loaf of bread /
  a string of sausages / an enormous melon
thief: crow / rat / magpie / gull / weasel
who: always wanted the bigger half / liked to be right / counted every crumb / never let
  anybody else go first

= {open}
= {When}, {hero} and {friend} found {food} next to the road.
| {When}, a wagon drove by and lost {food}. {Hero} and {friend} saw it fall.
| {When}, {hero} went for a walk with {friend}. In the middle of the path lay {food}.

= "I saw it first," said {hero}.
| "It is mine," said {hero}, "because my eyes are better."
| {Hero} put a paw on it. "Mine!" {he} said.

= "But I said it first," said {friend}. "So it is mine."
| "And mine, because my nose is better," said {friend}.
| "You always say that," said {friend}, and took hold of the other side.

= "Then we will cut it in half," said {hero}. "I take this half." "No, that half is
  bigger!" said {friend}.
| They tried to share it, but each wanted the bigger part.
| They measured it with a stick, with a string and with a tail, and each time they got
  another answer.
= They shouted so loudly that the leaves fell from the trees.
| They argued all morning, and then they argued about who had started.
| They grew louder and louder, and they stood nose to nose.

= Not far away sat {a thief} and listened. It liked to hear them shout.
| {A thief} heard the noise and came closer, step by step.
| Neither of them saw the {thief} that was waiting behind a stone.
= When both of them looked away, it took the food, quick as the wind.
| While they were shouting, it pulled the food away, bit by bit.
| And when {hero} closed both eyes to shout even louder, the {thief} took everything.

= From far away they heard the {thief}. "Thank you, and please go on!" it called.
| "Very good!" called the {thief} with a full mouth. "Come again tomorrow!"
| The {thief} ate all of it and did not leave even the smell.

= That night {hero} and {friend} went to bed hungry. Half of something is a lot more
  than all of nothing.
| "Half would have been enough for me," said {hero} sadly. "For me too," said {friend}.
  But nobody had said so in time.
| {Hero} and {friend} shared the last three crumbs. This time, {hero} took the smallest
  one.
"""

PLOTS["the hole in the bag"] = """
hero: CHILDREN
elder: Grandma / Aunt May
goods: peas / beans / walnuts / cherries / grapes / raisins / cookies / peanuts
bag: bag / basket / sack / bucket
birds: chickens / ducks / geese / pigeons / turkeys
who: liked to help / sang the whole day / walked with {his} nose in the air / often had
  {his} head in the clouds

= {open}
= {When}, {hero} went to the market to get {a bag} full of {goods}.
| "I will go and get {a bag} of {goods}," said {hero} {when.low}.
| {When}, {hero} went to town all alone for the first time, to buy {a bag} of {goods}.

= "This is easy," said {hero}. At the market {he} filled the {bag} to the top.
| The woman at the market filled the {bag}. "Is that too heavy for you?" "No, no," said
  {hero}.
| {Hero} paid, said thank you and took the heavy {bag} home.
= {He} sang on the way and did not see that there was a hole in it.
| But there was a hole in the {bag}, and nobody had seen it.
| {Hero} looked at the clouds. One looked like a sheep and one like a shoe.

= "How strange," said {hero}. "It is getting lighter. I must be getting stronger!"
| "It is not heavy at all any more," said {hero} proudly. "I am very strong today."
| The {bag} grew lighter and lighter, and {hero} sang louder and louder.

= At home {elder} looked into the {bag}. It was empty.
| "Here they are!" said {hero}, and gave {elder} the {bag}. There was nothing in it.
| {Elder} put a hand into the {bag}, and the hand came out at the bottom.

= "Did you buy air?" asked {elder}.
| "I see nothing at all," said {elder}.
| Then {elder} looked at {hero} through the hole. "Hello," said {elder}.
= {Hero} turned around, and there were the {goods}, in a long line down the road.
| {Hero} could not believe it. {He} opened the door, and there it all lay, in a long
  line.
| "But it was full!" said {hero}, and ran outside. There it all lay, in a long line.
= And up the road came a long row of {birds}.
| A row of {birds} was walking along the line, right up to the door.
| All the {birds} of the village had followed the line to the house.

= The two of them picked up the rest, and {elder} mended the {bag} with red thread.
| "Well," said {elder}, "we have nothing to eat, but we have guests." {Hero} had to
  laugh.
| It took the whole evening to send all those guests home.
= From that day on, {hero} looked into every bag before {he} filled it.
| And when {hero} felt very strong after that, {he} always looked behind {him} first.
| Later {hero} said, "At least I can't get lost that way."
"""

PLOTS["the hat and the wind"] = """
hero: CHILDREN
elder: Grandpa / Aunt May
color: COLORS
hat: hat / cap / straw hat / bonnet
place: PLACES
chaser: baker / mailman / gardener / policeman / farmer
eater: goat / donkey / cow / horse
who: loved to dress up / never went out without a hat / liked windy days / wanted to
  look like a grown-up

= {open}
= {Elder} gave {hero} {a color} {hat}. It was very fine.
| For {his} birthday, {hero} got {a color} {hat} from {elder}.
| {Elder} bought {hero} {a color} {hat}, and {hero} even wore it in the bath.
= {When}, {hero} wore it {place.to}. The wind was strong.
| {When}, {hero} went for a walk {place}, and the wind came too.
| "Hold on to it," said {elder}. "It is windy today." But {hero} wanted to wave.

= Whoosh! The wind took the {hat} and carried it away.
| Then the wind made a jump, and the {color} {hat} flew up like a bird.
| "My {hat}!" cried {hero}. It was already over the trees.
= {Hero} ran after it, over the fence and through the mud.
| It rolled, it hopped, it flew. {Hero} ran as fast as {he} could.
| Each time {hero} almost had it, the wind took it a bit farther.

= {A chaser} ran after it too, shouted, "I will get it!" and fell into a bush.
| "Stop that {hat}!" called {hero}. {A chaser} jumped, and missed it.
| It flew past {a chaser}, who tried to catch it with a net and caught a duck.

= At last the {hat} came down, right in front of {a eater}.
| And where did it land? On the head of {a eater}!
| In the end it fell on a pile of hay, and next to the hay stood {a eater}.
= The {eater} looked at {hero}. Then it opened its mouth and ate the {hat} in three
  bites.
| The {eater} smelled the {hat}, said thank you in its own way, and ate it up.
| But the {eater} was hungry. One bite, two bites, and there was nothing left.

= Nobody knew what to say. Then {hero} began to laugh.
| "I hope it tasted as good as it looked," said {hero}.
| "Well," said {elder}, "now we know who likes it best."
= The next one that {hero} got had a string under the chin. The {eater} was very sorry
  about that.
| From then on, the {eater} ran to the fence whenever {hero} came by. It wanted to see
  what {he} was wearing.
| After that, {hero} still said hello to the {eater} every day, but never again with
  {a hat} on.
"""

PLOTS["small helps big"] = """
hero: SMALL ANIMALS
big: BIG ANIMALS
trouble: TROUBLES
who: was so small that {he} could sleep in a shoe / was the smallest of them all /
  wanted to be as big as a tree / could hide behind a leaf

= {open}
= In the same woods lived {a big}, who was big and a little rude.
| Nearby lived {a big}. The ground shook when it walked.
| Everybody was afraid of the {big}, who lived in the same valley.

= {When}, they met on the path. "Out of my way, crumb!" said the {big}.
| {When}, the {big} almost stepped on {hero}. "I did not see you," it said. "There is
  not much to see."
| {When}, {hero} said hello to the {big}. It laughed so hard that the birds flew away.
= "I am small," said {hero}, "but maybe you will need me one day."
| "You never know when you will need a small friend," said {hero}.
| "Small can be good too," said {hero}.

= A few days later, {hero} heard a terrible cry. {Trouble}
| The next week there was a loud noise in the woods. {Trouble}
| One night {hero} woke up because somebody was crying. {Trouble}

= "Let me try," said {hero}. This time nobody laughed.
| "I think I am just the right size for this," said {hero}.
| {Hero} was afraid, but {he} came closer. "Hold still," {he} said.
= {Trouble.help}
| So {hero} went to work. {Trouble.help}
| {He} took a deep breath. {Trouble.help}
= It took all night, and then the {big} was {trouble.done} again.
| "Now!" called {hero}. The {big} jumped up and was {trouble.done} again.
| And all at once the {big} was {trouble.done} again.

= The {big} bent down until their noses touched. "You are the biggest friend I have," it
  said to {hero}.
| "I was wrong about you," said the {big}. After that, {hero} rode on its head, and {he}
  could see the whole world.
| From then on, the {big} looked down before each step and said good morning to {hero}.
| "Thank you, crumb," said the {big}. "From you that is a fine name," said {hero}, and
  they both laughed.
"""

PLOTS["the wishing stone"] = """
hero: CHILDREN
elder: Dad / Uncle Bill
place: PLACES
things: pancakes / cookies / dumplings / noodles / meatballs / jelly beans / donuts /
  muffins / popcorn balls
stone: stone / shell / acorn / coin
who: was always wishing for something / believed in magic / liked to eat / picked up
  everything {he} found

= {open}
= {When}, {hero} found a strange {stone} {place}. It was warm and it hummed, and {hero}
  took it home.
| {When}, {hero} was playing {place} and saw {a stone} that glowed a little. {He} took
  it home.
| {When}, {hero} helped a bee out of a puddle {place}. To say thank you, the bee gave
  {hero} {a stone} to take home.
= "I wish I had some {things}," said {hero}, just for fun.
| {Hero} held it and said, "How nice some {things} would be!"
| {He} rubbed it. "If you are magic," said {hero}, "then give me {things}."

= Plop! There they were, hot and fresh, and they tasted wonderful.
| And really, a whole plate full of them was standing there.
| There was a small bang, and there they were, on a golden plate!
= "More!" cried {hero}. And more came.
| {Hero} ate them all. "More, please!" {he} said.
| "Is that all?" asked {hero}. "I want more!" That was a mistake.

= Soon they were on the table, on the chairs and in the bathtub.
| They came out of the drawers, out of the shoes and down the stairs.
| The room was full, and then the house was full. They even came out of the chimney.

= The door opened. "{Hero}!" called {elder}. "What is all that in my bed?"
| A window opened, and {elder} looked in. "Did you cook?" asked {elder}.
| {Elder} came swimming down the hall. "What have you done?" asked {elder}.

= {Hero} told {elder} about the wish.
| {Hero} held up the {stone}. "I only made one wish," {he} said. "Well, two."
| "I only said, 'More'," said {hero} in a very small voice.

= "Did you ever say thank you?" asked {elder}.
| "Then wish for something for someone else," said {elder}.
| "Maybe the magic wants to hear that you have enough," said {elder}.

= So {hero} said, "Thank you, I have enough. I wish that all the hungry people get the
  rest."
| {Hero} thought hard. "I wish that every child in town gets some of them," {he} said.
  "And thank you."
| "I have had enough, and I thank you," said {hero}. "Now please feed somebody else."
= And in one second the house was empty. All over town, people stood there and wondered.
| Whoosh! They flew out of the window and right onto other people's plates.
| It worked. Only one was left, on {hero}'s head.

= {Hero} never made another wish. "Enough" is a magic word too.
| After that, {hero} did not make a wish for a whole year.
| That evening {hero} ate only one slice of dry bread, and {he} liked it very much.
"""

PLOTS["bath day"] = """
hero: CHILDREN
elder: Mom / Uncle Bill
color: black / white / gray / yellow / spotted
dog: DOGS
dirt: the puddle by the gate / the muddy ditch / the flower bed / the pond / the mud
  hole
treat: sausage / cheese / ham / liver

= {Hero} was a little {kind} who had {a color} dog named {dog}.
| Once upon a time, there was {hero.intro} who had {a color} dog. The dog's name was
  {dog}.
| Once upon a time, {hero.intro} lived with {a color} dog called {dog}.
| This story begins with {a color} dog named {dog}, who belonged to {hero.intro}.
= {When}, {dog} jumped into {dirt}. Now the {color} dog was the color of mud.
| {When}, {dog} rolled around in {dirt} and smelled terrible.
| {When}, {dog} had so much fun in {dirt} that nobody could see where the dog ended and
  the mud began.

= "That dog needs a bath," said {elder}.
| "Who is that?" asked {elder}. "That is not our dog. Our dog is {color}."
| {Elder} took a step back. "Into the tub!" said {elder}.

= "I can do it," said {hero}. {He} filled the tub with warm water.
| "That's easy," said {hero}, and put on a raincoat, just to be safe.
| {Hero} got the soap, a brush and three towels.
= But as soon as {dog} heard the word "bath", {dog} was gone.
| But {dog} knew that sound, and {dog} hid under the bed.
| {Dog} saw the soap and ran up the stairs.

= Then {hero} had an idea. {He} put some {treat} on the edge of the tub.
| "I know!" said {hero}. "All dogs love {treat}." {He} put some of it into a bowl by the
  tub.
| At last {hero} took some {treat} and made a path of little pieces, right into the tub.

= Sniff, sniff. {Dog} came closer. Sniff, sniff. Splash!
| Of course {dog} could not say no to that. One step, two steps, splash!
| It took two minutes. Then there was a big splash.
= But it was not only {dog} who fell in. {Hero} fell in too.
| {Dog} jumped in so fast that {hero} fell in as well.
| {Dog} was in the water, and so was {hero}, with both shoes on.
= Then {dog} shook, and {elder} was wet too. The cat was wet. Even the lamp was wet.
| {Dog} shook, and the water flew up to the ceiling and down on {elder}.
| And when {elder} came to help, {dog} shook from nose to tail.

= In the end everyone was clean: {hero}, {elder} and the floor. Only {dog} ran outside
  and jumped back into {dirt}.
| "Well," said {elder}, "now we have all had a bath." {Hero} laughed so much that {he}
  got the hiccups.
| Now {dog} was {color} again and slept on the rug. {Hero} slept next to {dog}, and both
  of them smelled of soap.
"""

PLOTS["the snowman"] = """
hero: CHILDREN
elder: Dad / Grandpa
nose: carrot / pine cone / potato / red pepper
hat: old pot / blue bucket / straw hat / green cap / top hat
flower: tulip / daisy / violet / crocus
who: loved the snow / waited for the winter all year / had warm boots and red cheeks /
  liked to build things

= {open}
= One winter morning everything was white, and {hero} built a snowman.
| One winter it snowed for two days, and {hero} made a big snowman in front of the
  house.
| In January the snow came. {Hero} and {elder} rolled three balls and made a snowman.
= It had {a nose} for a nose and {a hat} on its head.
| {Hero} gave it {a nose} for a nose and put {a hat} on top.
| Its nose was {a nose}, and for a hat it had {a hat}.

= "You are my friend," {hero} told the snowman.
| {Hero} said good morning to it every day and good night to it every evening.
| Every day after school, {hero} told the snowman everything. It was very good at
  listening.

= But then the days grew warmer, and the snowman grew smaller.
| Then the sun came out, and the snowman began to drip.
| In March a warm wind blew. Each morning the snowman was a bit thinner.

= One morning there was only a puddle. In it lay the {hat}.
| And then it was gone. There was only the {hat}, and it looked very lonely.
| Soon nothing was left but some water and the {hat}.
= {Hero} cried. "I did not even say goodbye," {he} said.
| "Where is my friend?" asked {hero}, and big tears ran down {his} face.
| {Hero} was very sad and did not want to eat.

= "It is not all gone," said {elder}. "The water went into the ground. Wait a little."
| Then {elder} sat down next to {hero}. "Snowmen do not die," said {elder}. "They
  travel."
| "Look at the ground and not at the sky," said {elder}. "And give it a few days."

= A week later, {a flower} was growing there, just where the snowman had stood. "Hello
  again," said {hero}.
| And in April, right in that place, {hero} saw {a flower}. It had a hat of dew and it
  nodded in the wind.
| One day {hero} found {a flower} there, the first of the year. It seemed to {hero} that
  it winked.
= {Hero} kept the {hat} for the next winter.
| And {hero} watered it every day, with very cold water.
| Some friends go away, {hero} thought, but they leave something behind.
"""

PLOTS["the spoiled picture"] = """
hero: CHILDREN
elder: Grandpa / Aunt May
subject: boat / castle / garden / mountain / horse / lighthouse
stain: STAINS
who: loved to paint / had paint on {his} nose every day / saw pictures everywhere / drew
  on everything, even on {his} own shoes

= {open}
= Somebody's birthday was near, and {hero} wanted to paint a picture of {a subject}.
| {When}, {hero} began to paint {a subject}. It was to be a birthday present.
| "I will paint {a subject} as a present," said {hero} {when.low}.

= It was almost done. Then {stain.how}.
| {Hero} put the picture on the table to dry. But {stain.how}.
| {Hero} went to wash the brush, and just then {stain.how}.
= Now there was {a stain} right in the middle of the {subject}.
| When {hero} looked again, there was {a stain} on the {subject}.
| "No!" cried {hero}. There was {a stain} on the beautiful {subject}.

= {Hero} cried and wanted to throw the picture away.
| "Everything is spoiled," said {hero}, and tears fell on the paper too.
| {Hero} was so angry that {he} threw the brush into a corner.
= Then {he} turned the paper around and looked at it from the other side.
| {He} looked at it for a long time, first with one eye and then with the other.
| But then {he} stopped. Something about it looked funny.

= "Wait," said {hero}. "It looks like {a stain.turn}!"
| From far away it was not {a stain} at all. It was {a stain.turn}!
| If you added two lines here and a dot there, it was {a stain.turn}.
= {He} took the brush and painted some more. Now {a stain.turn} was visiting the
  {subject}.
| Quickly {he} added some lines, and {a stain.turn} was looking out of the picture.
| A bit of black, a bit of white, and the {subject} had company: {a stain.turn}.

= {Elder} opened the present and laughed. "I like the {stain.turn} best of all!"
| "{A subject} and {a stain.turn}!" said {elder}. "How did you think of that?"
| {Elder} hung it in the best place in the house. "Anybody can paint a picture," said
  {elder}, "but this one is special."

= "It was a mistake," said {hero}, "but it turned out to be a good one."
| {Hero} smiled and said nothing about how it had happened.
| After that, {hero} was no longer afraid of spots. Each one could become something.
"""

PLOTS["the bird with the hurt wing"] = """
hero: CHILDREN
elder: Grandma / Uncle Bill
bird: BIRDS
place: PLACES
bed: shoe box / basket / old hat / wooden bowl / drawer
who: loved animals / had a soft heart / knew the name of every bird / was good at taking
  care of others

= {open}
= {When}, {he} found {a bird} {place}. It could not fly.
| {When}, {hero} heard a thin cry {place}. There lay {a bird} with a hurt wing.
| {When}, {a bird} fell from a tree, right in front of {hero}. One of its wings hung
  down.
= "Don't be afraid," said {hero}, and picked it up very gently.
| It was as light as a leaf, and {hero} could feel its heart.
| "Poor thing," said {hero}, and carried it home in both hands.

= {Hero} made it a bed in {a bed}, with grass and a piece of cloth.
| At home {hero} put some hay into {a bed}, and that was its bed.
| {Elder} found {a bed}, and {hero} put the {bird} into it.
= "Can I keep it?" asked {hero}. "Until it can fly," said {elder}.
| "It can stay until its wing is well," said {elder}. "Then it must go home."
| "It is not ours," said {elder}. "But we can help it."

= Every day {hero} gave the {bird} {bird.food}. It ate out of {his} hand.
| {Hero} fed the {bird} {bird.food} and told it stories.
| The {bird} ate {bird.food} and {bird.does} whenever {hero} came in.

= Then one morning the {bird} opened its wings and flew around the room.
| After three weeks, the wing was well. The {bird} flew up to the lamp and back.
| And one day it sat on the windowsill and looked up at the sky.

= "If you love it, open the window," said {elder} softly.
| "You helped it to fly," said {elder}. "Now let it."
| Then {elder} put a hand on {hero}'s arm and said nothing.
= So {hero} opened the window. The {bird} flew once around {his} head, and then it was
  gone.
| {Hero} opened the window wide. "Goodbye," {he} said. The {bird} {bird.does} and flew
  away.
| Slowly {hero} opened the window, and the {bird} flew off over the roofs.

= All winter {hero} kept its bed ready. And in the spring, a bird called in front of
  {his} window. There were two of them now.
| {Hero} missed it. But whenever a bird called high up in a tree, {he} waved, and
  sometimes it waved back with one wing.
| The room was quiet then. But {hero} was proud, because somewhere up there was a bird
  that could fly again.
| In the fall, {hero} found a single feather on the windowsill. {He} hung it over {his}
  bed.
"""

PLOTS["the stranger's tracks"] = """
hero: ANIMALS
friend: FRIENDS
food: acorns / nuts / mushrooms / cookies / walnuts / honey cakes / apples / chestnuts
who: liked to play detective / was curious about everything / loved secrets / had a very
  good nose and was proud of it

= {open}
= {When}, {hero} woke up and saw that {his} {food} were gone.
| {When}, {hero} wanted to eat some {food}, but the jar was empty.
| One night, all of {his} {food} vanished.
= "A thief!" cried {hero}. "I will catch that thief!"
| "Somebody was here," said {hero} in a dark voice.
| {Hero} put on a big hat and took a magnifying glass. "Who did this?" {he} said.

= There had been fresh snow, and it was full of tracks.
| Outside the ground was wet, and there were footprints in the mud.
| In front of the door {hero} found footprints. They were not big and not small.
= "Come with me," {he} told {friend}. "The thief is dangerous."
| Just then {friend} came by. "Tracks!" {hero} told {friend}. "We must follow them."
| {Hero} went to get {friend}, because two are braver than one.

= They followed the tracks around an oak, past a stump and across a bridge.
| The tracks went up the hill, down the hill and twice around a bush.
| The tracks led through the ferns, along a stream and past three big stones.
= "Here the thief sat down," said {hero}, "and here the thief ate something. How mean!"
| "The thief stopped here to sneeze," said {hero}. "The thief has a cold. So have I, by
  the way."
| "The thief has fat feet," said {hero}, "and walks in a very silly way."

= At noon {friend} stopped. "I think we have been here before," said {friend}.
| "That is funny," said {friend}. "There is your door again."
| In the end the tracks led right back to {hero}'s door.

= Now {hero} put a foot into one of the footprints. It fit!
| Then {friend} asked, "May I see your foot?" It was just as big as the footprints.
| And {friend} pointed at the footprints and began to giggle. They were {hero}'s own!
= And then {hero} remembered. {He} had been hungry in the night and had eaten
  everything, half asleep.
| "Now I know," said {hero}. "Last night I dreamed that I went for a walk and ate and
  ate. It was not a dream."
| In {his} own pocket {hero} found the last few bites. {He} had walked in {his} sleep!

= "The thief is caught," said {friend}. "What shall we do with the thief?" "Give the
  thief some breakfast," said {hero}.
| {Hero} was so ashamed that {he} hid behind a tree. But {friend} only laughed and
  shared some soup with {him}.
| From then on, {hero} locked the door at night, from the outside.
"""

PLOTS["the new toy"] = """
hero: TOY HEROES
rival: shiny robot / big rocking horse / talking doll / racing car / toy piano / fire
  truck
owner: CHILDREN
corner: under the bed / in the corner / behind the shelf / at the back of the closet
who: was {owner}'s favorite toy / had shared a room with {owner} for years / was old and
  a bit worn, but {owner} did not mind / sat next to {owner} at every meal

= {open}
= Then {owner} got {a rival} for {owner.his} birthday.
| One day there was a large package, and in the package was {a rival}.
| {When}, {a rival} came to the house. It was new and very clean.

= All day long {owner} played with the {rival}, and {hero} lay {corner}.
| Suddenly {owner} had no time for {hero}. The {rival} was so much newer.
| That night {hero} was not in {owner}'s bed. {He} lay {corner}, and it was dusty there.
= "Nobody loves me any more," thought {hero}.
| {Hero} did not say anything, because toys do not cry out loud.
| "I wish that the {rival} would break," thought {hero}, and then {he} was ashamed.

= At midnight {hero} heard a soft noise. It was the {rival}, and it was sad.
| In the night, when toys can talk, somebody sniffed. "Who is there?" asked {hero}. It
  was the {rival}.
| When the clock struck twelve, {hero} saw that the {rival} was shaking.
= "It is so dark here," said the {rival}. "In the store there was always a light."
| "I don't know anybody here," said the {rival}. "And I am afraid that I will break."
| "Everybody only looks at me," said the {rival}. "Nobody talks to me."

= "Come here," said {hero}. "I will tell you what this house is like."
| "You get used to it," said {hero}. "I will show you the moon. It is as good as a
  lamp."
| "I was new once too," said {hero}. "Shall I tell you a story?"

= In the morning {owner} found them side by side. "Of course!" said {owner}. "You two
  belong together."
| When {owner} woke up, {owner.he} looked for {hero} everywhere. "There you are! I could
  not sleep without you."
| The next day {owner} built a house of blocks, and it had two beds in it.
= From then on, they played together, and {hero} was the captain.
| After that, {hero} was never {corner} again, and the {rival} was never afraid.
| A heart is not a shelf, and there is always room for one more. {Hero} knew that now.
"""

PLOTS["the thirsty plant"] = """
hero: CHILDREN
elder: Aunt May / Uncle Bill
plant: rose / lemon tree / fern / tomato plant / sunflower / strawberry plant
who: put everything off until tomorrow / forgot everything / was often thinking of
  something else / promised a lot
plan: flew a kite / read a book / played with the dog / built a tower / went swimming /
  rode a bicycle

= {open}
= {When}, {hero} was asked to look after {a plant} for a week. It needed a little water
  every day.
| "I am going on a trip," one of the grown-ups told {hero} {when.low}. "Can you water my
  {plant} every day?"
| "Will you water my {plant} for a week?" one of the grown-ups asked {hero} {when.low}.

= "I promise!" said {hero}.
| "Of course I will," said {hero}.
| "You can count on me," said {hero} proudly.

= On the first day, {hero} gave it water and even said good night to it.
| The first day was easy, and the {plant} looked fresh and green.
| On Monday {he} remembered, and the {plant} got a whole cup.
= On the second day, {hero} {plan} instead. "I will do it later," {he} said.
| The next day {hero} {plan}. The {plant} could wait.
| Then the weather was so fine that {hero} {plan} all day long.

= At the end of the week {hero} remembered. {He} ran to the {plant} with a big can of
  water.
| Then {hero} heard steps at the door, and {he} turned pale. The {plant}!
| "Oh no," said {hero} on Sunday. "The {plant}!"
= {He} poured and poured, but it was too late. The {plant} was brown and dry.
| {He} gave it seven cups at once, one for each day. But {a plant} can't drink like
  that.
| But all the leaves lay on the floor, and water could not help it now.

= "I am so sorry," said {hero}. "I kept thinking, later."
| {Hero} did not try to hide it. "It is my fault," {he} said.
| When {elder} came in, {hero} began to cry.
= It was {elder}'s plant, and now {elder} was sad too. "A promise is like a plant," said
  {elder}. "It needs some care every day."
| "That can't be mended," said {elder} quietly. "Some things don't wait for us."
| Then {elder} took the dry {plant} out of the pot and did not say much.

= {Hero} never forgot that {plant}. Even years later, when {he} wanted to say "later",
  {he} thought of it and got up.
| {Hero} put the empty pot next to {his} bed, so that {he} would remember. And {he} did.
| In the spring, {elder} gave {hero} a new seed. This time, {hero} tied a string around
  {his} finger and watered it every single day.
"""

PLOTS["the moon in the pond"] = """
hero: ANIMALS
friend: FRIENDS
tool: net / bucket / spoon / basket / soup bowl / ladle
who: liked to look at the sky / wanted to have what nobody else had / could not sleep
  when the moon was full / loved everything that was round and bright

= {open}
= One night {hero} came to the pond, and there, in the water, lay the moon.
| One clear night {hero} looked into the pond. There was the moon, big and round, in the
  water!
| One evening {hero} went to the pond to drink. But the moon was already in it.
= "The moon has fallen down!" cried {hero}.
| "Poor moon!" said {hero}. "It will get wet."
| "What luck!" said {hero}. "I will take it home and hang it over my bed."

= {He} ran and got {a tool}. Then {he} tried to lift the moon out.
| {Hero} came back with {a tool} and leaned over the water.
| "I need {a tool}," said {hero}, and soon {he} was back with one.
= But each time the {tool} touched the moon, the moon broke into a thousand pieces.
| The moon ran out of the {tool} like soup.
| Whenever {he} almost had it, it shook and slipped away from the {tool}.

= "What are you doing?" asked {friend}, who could not sleep either.
| {Friend} came by in a nightshirt. "What is all that splashing?" asked {friend}.
| "Are you fishing?" called {friend} from the other side.

= "I am saving the moon," said {hero}. "Hold my tail!"
| "Quiet," said {hero}. "I am catching the moon."
| "Come and help me," said {hero}. "It is heavier than it looks."

= So {friend} held on to {hero}, and {hero} leaned out, farther and farther. Splash!
  Both of them fell in.
| They pulled together. The {tool} came up, their feet went up, and they fell into the
  pond.
| Just then {friend} wanted to say something, but {hero} leaned out too far. Splash! Now
  they were both in the water.

= Then {friend} looked up. "{Hero.call}," said {friend}, "there it is."
| And {friend} lay on {friend.his} back and pointed up. "Look, {hero.call}."
| "Look up!" said {friend}, and began to laugh.
= High above the trees hung the moon, dry and whole.
| There was the moon, up in the sky, where it always was.
| The moon was in the sky, round and quiet. It had been there the whole time.

= "We did it!" cried {hero}. "We threw it back up!" And {friend} was too cold to argue.
| "You see?" said {hero} proudly. "I saved it." {Friend} sneezed three times.
| {Hero} thought about it. "I think I will leave it there," {he} said. "It shines for
  more of us that way."
| They sat at the edge of the pond until morning, wrapped in one blanket. "There are two
  of them," said {hero}, "one to look at and one to catch."
"""

# ======================================================================================
# PIECES: from a plot to a story
# ======================================================================================

SLOT = re.compile(r"\{(a )?([\w.]+)\}", re.IGNORECASE)


def pick(rng, options):
    """Return one of the options; each is as likely as the others."""
    # SUBTLE: random() alone has a sequence that Python promises to keep. choice() and
    # shuffle() may change with the version, and so would everybody's training text.
    return options[int(rng.random() * len(options))]


def shape(slot, words):
    """Return the words for a slot as its place wants them: {a toy}, {Hero}, {A toy}.

    Arguments: slot, a match of SLOT; words, what was drawn for it.
    """
    if slot[1]:
        words = ("an " if words[0] in "aeiou" else "a ") + words
    if slot[0] != slot[0].lower():  # a sentence begins
        words = words[0].upper() + words[1:]
    return words


def fill(text, slots):
    """Return the text with every slot replaced by the words that were drawn for it.

    >>> fill("{Hero} saw {a toy}.", {"hero": "the little fox", "toy": "orange ball"})
    'The little fox saw an orange ball.'
    """
    return SLOT.sub(lambda slot: shape(slot, slots[slot[2].lower()]), text)


@lru_cache(maxsize=None)
def parse(plot):
    """Split a plot into what to draw and what to tell.

    Returns (draws, beats). draws is {slot: rows to draw from}, in the order of drawing;
    a beat is a list of wordings. A wording begins with what separates it from the beat
    before: a space, or a newline if it opens a paragraph.
    """
    head, *blocks = join_lines(plot.strip()).split("\n\n")
    draws = {"when": WHEN}
    for line in head.split("\n"):
        names, source = line.split(": ", 1)
        if source.isupper():
            rows = TABLES[source]
        else:
            rows = [{"": option} for option in source.split(" / ")]
        for name in names.split(", "):
            draws[name] = rows
    draws["homeland"] = HOMES[draws["hero"][0]["lives"]]
    if "who" in draws:
        draws["open"] = OPENINGS
    beats = []
    for block in blocks:
        gap = "\n" if beats else ""
        for beat in block[2:].split("\n= "):
            beats.append([gap + wording for wording in beat.split("\n| ")])
            gap = " "
    return draws, beats


def choices(slot, draws, cast):
    """Return the rows that a slot is drawn from; the hero decides on the openings."""
    rows = draws[slot]
    if slot == "open" and "hero" in cast and "name" not in cast["hero"]:
        return [row for row in rows if "{hero.name}" not in row[""].lower()]
    return rows


def draw_slots(rng, draws):
    """Return {slot: words}, drawing no row twice in one story."""
    cast, slots = {}, {}
    for slot in draws:
        rows = choices(slot, draws, cast)
        row = pick(rng, rows)
        while row in cast.values():
            row = pick(rng, rows)
        cast[slot] = row
        for column, value in row.items():
            slots[f"{slot}.{column}" if column else slot] = fill(value, slots)
        if slot == "hero":  # {he} is short for {hero.he}
            slots |= {column: value for column, value in row.items() if column}
    return slots


def tell(rng, plot):
    """Return one story: the plot, told with words drawn from rng."""
    draws, beats = parse(PLOTS[plot])
    slots = draw_slots(rng, draws)
    return "".join(fill(pick(rng, beat), slots) for beat in beats)


def stories(count, seed=1):
    """Yield `count` stories, no two the same.

    Arguments: count, how many; seed, an int: the same seed gives the same stories on
    every machine. Returns an iterator of str; the paragraphs of a story are lines.
    The idea is the recipe of TinyStories (Eldan & Li 2023, arXiv 2305.07759): choose
    words and features, then tell a story around them.
    """
    rng = random.Random(seed)
    names = list(PLOTS)
    told = set()
    while len(told) < count:
        story = tell(rng, pick(rng, names))
        if story not in told:
            told.add(story)
            yield story


def write_atomically(path, lines):
    """Write whole or not at all: a killed run leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + f".{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_corpus(train_path, valid_path, train=20_000, valid=1_000, seed=1):
    """Write a training and a validation text of practice stories.

    Arguments: the two paths; train and valid, how many stories each gets; seed, an int.
    Returns None. A line <|endoftext|> follows every story. Validation stories are the
    next ones of the same stream, and as no story is told twice, none of them is also a
    training story. The idea is the recipe of TinyStories (Eldan & Li 2023, arXiv
    2305.07759): choose words and features, then tell a story around them.
    """
    texts = [f"{story}\n{END_OF_STORY}\n" for story in stories(train + valid, seed)]
    write_atomically(train_path, texts[:train])
    write_atomically(valid_path, texts[train:])


# ======================================================================================
# EVALUATION: is a story right to its last word, and what is the lowest possible loss?
# ======================================================================================
#
# For real text nobody can answer these questions. For ours we can: every story comes
# from the grammar above, and check() and limit() read the same plots and tables. Take
# "Tim lost a red kite. ... Tom was glad": check() names Tom and says that Tim was
# expected.

Mistake = namedtuple("Mistake", "offset fraction found expected kind")
Limit = namedtuple("Limit", "nats bytes bits_per_byte")

# What check() calls a name is a slot of these; if your plot has others, add them.
CHARACTERS = {"hero", "friend", "owner", "elder", "wise", "guest", "dog"}
PHRASES = {"when", "who", "homeland", "open"}  # slots that hold wording, not a thing
WORD = re.compile(r"\s*(?:[\w'-]+|\S)|\s*")
INSIDE_A_WORD = re.compile(r"[\w-]{2}")


def options(slot, draws, cast):
    """Return the rows that can be drawn for a slot after the cast, {slot: row}."""
    return [row for row in choices(slot, draws, cast) if row not in cast.values()]


def column_of(slot, draws):
    """Return (slot name, column) for a match of SLOT: ("hero", "he") for {he}."""
    name, _, column = slot[2].lower().partition(".")
    return (name, column) if name in draws else ("hero", name)


def agree(story, at, words):
    """Return how much of words, in whole words, the story has at an offset."""
    there = story[at : at + len(words) + 1]
    same = len(commonprefix((words, there)))
    if any(INSIDE_A_WORD.match(text, same - 1) for text in (words, there)):
        same = re.search(r"[\w-]*$", words[:same]).start()  # no "T" of Tim and Tom
    return same


def read(story, at, text, draws, cast, misses, inside=None):
    """Yield (end, cast) for every way to read story[at:end] as the text.

    A slot in the cast keeps its row, and any other can have each that is free. misses
    gets what does not match; inside is the slot that the text was drawn for, or None.
    """
    slot = SLOT.search(text)
    words = text[: slot.start()] if slot else text
    end = at + len(words)
    half = words and INSIDE_A_WORD.match(story, end - 1)  # Ben, and there is Benno
    if half or not story.startswith(words, at):
        misses.append((at, words, inside, draws))
    elif not slot:
        yield end, cast
    else:
        name, column = column_of(slot, draws)
        for row in [cast[name]] if name in cast else options(name, draws, cast):
            if column in row:
                words, known = shape(slot, row[column]), cast | {name: row}
                for at, known in read(story, end, words, draws, known, misses, slot):
                    rest = text[slot.end() :]
                    yield from read(story, at, rest, draws, known, misses, inside)


def readings(story, at, beats, draws, cast, misses):
    """Yield the cast for every way to read story[at:] as these beats (backtracking)."""
    if beats:
        for wording in beats[0]:
            for end, known in read(story, at, wording, draws, cast, misses):
                yield from readings(story, end, beats[1:], draws, known, misses)
    elif at == len(story):
        yield cast
    else:
        misses.append((at, "", None, draws))


def alternative(story, start, at, words, slot, draws):
    """Return (other, words, kind) for a miss: the words that could be at the start.

    other is what is there, if the slot could have it in another story, or else "".
    """
    words = words[start - at :]
    word = WORD.match(words)[0]
    name, column = column_of(slot, draws) if slot else ("open", "")
    if name in PHRASES or (column == "intro" and word.islower()):
        return "", word, "wording"
    rows = [shape(slot, row[column]) for row in draws[name] if column in row]
    rows = [row for row in rows if story.startswith(row, at)]
    whole = [row for row in rows if agree(story, at, row) == len(row)]
    other = max(whole, key=len, default="")
    kind = "name" if name in CHARACTERS and column not in ("kind", "home") else "thing"
    return other[start - at :], words, "pronoun" if column in PRONOUNS["he"] else kind


def check(story, plots=PLOTS):
    """Return None if the plots could have told exactly this story, else a Mistake.

    It is the first mistake: no story of the grammar begins like this one and continues
    with found, the words at offset (fraction is offset / len(story)). Every string in
    expected could be there ("" is the end). kind says what is wrong: "name", "thing",
    "pronoun", "wording", "an end too early", or "text after the end".
    """
    misses = []
    for plot in plots.values():
        draws, beats = parse(plot)
        if any(True for _ in readings(story, 0, beats, draws, {}, misses)):
            return None
    far = max(at for at, *_ in misses)
    misses = [miss for miss in misses if miss[0] + len(miss[1]) >= far]
    ends = [at + agree(story, at, words) for at, words, *_ in misses]
    start = max(ends)
    last = [miss for miss, end in zip(misses, ends, strict=True) if end == start]
    # A story that ends in the middle of these words is right as far as it goes.
    cut = [miss for miss in last if miss[1].startswith(story[miss[0] :])]
    last = [alternative(story, start, *miss) for miss in cut or last]
    # If many words could be here and one of them is a name, "Tim" is a wrong name.
    found = max((other for other, _, _ in last), key=len)
    expected = sorted({words for other, words, _ in last if other == found})
    kinds = {kind for other, _, kind in last if other == found}
    kind = kinds.pop() if len(kinds) == 1 else "wording"
    found = found or WORD.match(story, start)[0]
    if cut:
        start, found, kind = len(story), "", "an end too early"
    elif expected == [""]:
        kind = "text after the end"
    return Mistake(start, start / (len(story) or 1), found, tuple(expected), kind)


@lru_cache(maxsize=None)
def hides(text, slot, plot, named):
    """Return the probability that a text, when filled, shows nothing of a slot."""
    draws, _ = parse(plot)
    cast = {"hero": {"name": ""} if named else {}}
    probability = 1.0
    for match in SLOT.finditer(text):
        name, column = column_of(match, draws)
        rows = choices(name, draws, cast)
        hidden = fmean(hides(row.get(column, ""), slot, plot, named) for row in rows)
        probability *= 0 if name == slot else hidden
    return probability


@lru_cache(maxsize=None)
def limit():
    """Return the entropy of the stories: no model's expected loss can be lower.

    The nats per story are exact: log(n) for each choice among n, times the probability
    that the story shows it (no story can be told in two ways: the tests look for one).
    The bytes per story are the mean of 20,000 stories.
    """
    nats = math.log(len(PLOTS))
    for plot in PLOTS.values():
        draws, beats = parse(plot)
        heroes = draws["hero"]
        told = sum(math.log(len(beat)) for beat in beats)
        for hero in heroes:
            cast = {}
            for slot in draws:
                hidden = math.prod(
                    fmean(hides(text, slot, plot, "name" in hero) for text in beat)
                    for beat in beats
                )
                rows = options(slot, draws, cast)
                cast[slot] = hero if slot == "hero" else rows[0]
                told += (1 - hidden) * math.log(len(rows)) / len(heroes)
        nats += told / len(PLOTS)
    size = fmean(len(story) for story in stories(20_000))
    return Limit(nats, size, nats / math.log(2) / size)


# ======================================================================================
# SCENES: stories about what a picture shows, for lessons/quests/picture.py
# ======================================================================================
#
# These plots are no part of the practice text, and no practice story changes with them.
# A model of the practice text knows their words, which come from the tables and plots
# above; only four homes (nest, cave, den, burrow) are new. Every story names an animal,
# a color, a toy, a place, and the weather.

TABLES["SCENE ANIMALS"] = [row for row in TABLES["ANIMALS"] if "name" not in row]
TABLES["WEATHER"] = table(
    """
    sun | The sun was out. | in the sun
    rain | The rain came down. | in the rain
    snow | There was snow in the air. | in the snow
    clouds | The wind blew the clouds along. | under the clouds
    """,
    "sky", "where",
)  # fmt: skip
TABLES["SCENE PLACES"] = [
    row
    for row in TABLES["PLACES"]
    if row[""].split()[-1] in {"beach", "farm", "garden", "hill", "lake", "orchard"}
]

SCENE = """
hero: SCENE ANIMALS
color: COLORS
toy: ball / kite / toy boat / toy car / drum / pinwheel / spinning top / toy train
place: SCENE PLACES
weather: WEATHER
"""
SCENE_PLOTS = {}

SCENE_PLOTS["the toy that was found"] = SCENE + """
= {When}, {hero} went {place.to}. {weather.sky}
| {weather.sky} {Hero} went {place.to}, all alone.
| Once upon a time, {hero.intro} went {place.to}. {weather.sky}
= There {he} found {a color} {toy}.
| Something lay on the ground. It was {a color} {toy}!
| "What is this?" said {hero}. It was {a color} {toy}.

= {He} asked everyone, but nobody had lost {a toy}.
| {Hero} waited for a long time, but nobody came to get it.
| "Who lost this {toy}?" {he} asked. Nobody knew.
= So {hero} played {weather.where} until it was dark.
| So {he} played with the {color} {toy} {weather.where}.
| So {hero} and the {toy} had a fine day {weather.where}.

= That night, the {color} {toy} slept in the {hero.home}, right next to {hero}.
| Then {hero} took the {color} {toy} home to the {hero.home}. What a day!
| From that day on, {hero} took the {color} {toy} everywhere.
"""

SCENE_PLOTS["the toy for everyone"] = SCENE + """
= {Hero} had {a color} {toy}. {When}, {he} took it {place.to}.
| {When}, {hero} took {a color} {toy} {place.to}.
| Once upon a time, there was {hero.intro} with {a color} {toy}. {When}, {he} played
  with it {place}.
= {weather.sky} "I like the {weather}," said {hero}.
| {weather.sky} But {hero} was not afraid of the {weather}.
| {weather.sky} {Hero} did not even see the {weather}.

= Soon all the animals came to look at the {color} {toy}. "May we play too?" they asked.
| "What a fine {toy}!" said a small bird. "May I play with it too?"
| A little ant wanted to play too, but it was too small for the {toy}.
= "No, it is mine!" said {hero}. But it was no fun to play alone {weather.where}.
| {Hero} thought about it {weather.where}. "It is my only one," {he} said.
| First {hero} shook {his} head. Then {he} felt bad, and stood there {weather.where}.

= So {hero} shared the {color} {toy}, and everyone had a turn.
| In the end, {hero} let everyone play with the {color} {toy}. {He} had never had so
  many friends.
| "Come here," said {hero}. And they all played with the {color} {toy} until supper.
"""

SCENE_PLOTS["the toy that was gone"] = SCENE + """
= {When}, {hero} lost {a color} {toy} {place}. {weather.sky}
| {weather.sky} {Hero} was sad, because {a color} {toy} was lost {place}.
| Once upon a time, {hero.intro} lost {a color} {toy} {place}. {weather.sky}
= {He} looked for it {weather.where} until {his} feet hurt.
| "Where is my {toy}?" said {hero}, and ran around {weather.where}.
| {Hero} sat down {weather.where} and cried a little.

= Then {he} saw something {color} behind a big stone.
| All at once, there was something {color} in front of {him}.
| "Look over there," said a small bird. Something {color} was under a leaf.
= It was the {toy}! "There you are," said {hero}.
| And what was it? It was the {toy}!
| It was the {toy}, and it was as good as new.

= {Hero} danced all the way home with the {color} {toy}.
| {Hero} took the {color} {toy} home to the {hero.home} and never lost it again.
| That night, {hero} told the {color} {toy} a story, and they both slept well.
"""


def tell_scene(rng):
    """Return a scene, {"animal": "fox", "color": "red", ...}, and a story about it."""
    draws, beats = parse(pick(rng, list(SCENE_PLOTS.values())))
    slots = draw_slots(rng, draws)
    place = slots["place"].split()[-1]  # "at the beach" -> "beach"
    scene = {"animal": slots["kind"], "color": slots["color"], "toy": slots["toy"]}
    scene |= {"place": place, "weather": slots["weather"]}
    return scene, "".join(fill(pick(rng, beat), slots) for beat in beats)


# ======================================================================================
# REQUESTS: three words, a hero and an ending, and which of them a story keeps
# ======================================================================================
#
# TinyStories-Instruct (arXiv 2305.07759) puts a request before each story: words in it,
# features such as a bad ending. So does pairs(), for lessons/quests/instruct.py. The
# other functions say what any story keeps of a request, even a story with mistakes.

Pair = namedtuple("Pair", "words hero ending story")

# What was lost stays lost: the summer's fun, the fruit, the food, the plant.
SAD = {
    "the warning", "too many sweet things", "the two who quarreled", "the thirsty plant"
}  # fmt: skip
# These say little about a story, or are what requests are made of (the last lines).
FUNCTION_WORDS = """
about after ahead all almost always and another any anybody anything are around asked
away back behind being best better between big both but came can could day did down else
even every everyone everything everywhere far few first five for found from good had has
have heard her him his inside into its just knew let like liked little long look looked
lot loved make more morning must never next nobody not off often old once one other
others out outside over own please put ran right said sat saw see she small some
something still sure than that the them there they things thought three through time
told tomorrow too took two under until very wanted was well went were what when while
who whole with without yes you your
badending end ending ends features happily happy hero sad sadly story tell use word
words write
""".split()
WHOLE_WORD = re.compile(r"(?<![\w'-])[a-z]{3,}(?:-[a-z]+)*(?![\w'-])")


def things(draws):
    """Return the slots whose words can be asked for: kite, "was very shy", no names."""
    return {slot for slot in draws if slot == "who" or slot not in CHARACTERS | PHRASES}


@lru_cache(maxsize=None)
def word_plots():
    """Return two dicts {word: plots}: which plots can say it, and which draw it."""
    said, drawn = {}, {}

    def add(found, texts):
        for word in WHOLE_WORD.findall(SLOT.sub("_", "\n".join(texts))):
            found.setdefault(word, set()).add(plot)

    for plot in PLOTS:
        draws, beats = parse(PLOTS[plot])
        add(said, sum(beats, []))
        for slot, rows in draws.items():
            texts = [text for row in rows for text in row.values()]
            add(said, texts)
            if slot in things(draws):
                add(drawn, texts)
    return said, {w: drawn[w] for w in drawn if w not in FUNCTION_WORDS}


def known_words(text):
    """Return the words of a text that can be asked for, each once, in its order."""
    _, drawn = word_plots()
    return [word for word in dict.fromkeys(WHOLE_WORD.findall(text)) if word in drawn]


def hero_of(text):
    """Return the hero whom a story or a request names first, "Lily", or None."""
    rows = [row for rows in TABLES.values() for row in rows if "call" in row]
    heroes = {row["call"]: row[""] for row in rows}
    # "A little mouse named Pip" is about Pip, but "a little mouse" is a hero, too.
    found = re.search(rf"\b({'|'.join(heroes)})\b(?! named| called)", text)
    return heroes[found[1]] if found else None


def ending_of(story):
    """Return "sad" or "happy", by the plot that the words of a story point to, or None.

    Each word has one vote, divided among the plots that can say it.
    """
    said, _ = word_plots()
    votes = Counter()
    for word in dict.fromkeys(WHOLE_WORD.findall(story)):
        for plot in said.get(word, ()):
            votes[plot] += 1 / len(said[word])
    if votes:
        return "sad" if max(PLOTS, key=lambda plot: votes[plot]) in SAD else "happy"


def pairs(count, seed=1, sad=0.5):
    """Yield `count` pairs of a request and a story that keeps it.

    The three words are among those that were drawn for the story; sad is the fraction
    of sad endings.
    """
    rng = random.Random(seed)
    plots = {"sad": sorted(SAD), "happy": [plot for plot in PLOTS if plot not in SAD]}
    while count > 0:
        ending = "sad" if rng.random() < sad else "happy"
        draws, beats = parse(PLOTS[pick(rng, plots[ending])])
        slots = draw_slots(rng, draws)  # from here on like tell()
        story = "".join(fill(pick(rng, beat), slots) for beat in beats)
        asked = things(draws)
        chosen = [slots[slot] for slot in slots if slot.split(".")[0] in asked]
        known, there = known_words(" ".join(chosen)), WHOLE_WORD.findall(story)
        known = [word for word in known if word in there]  # a wording can leave one out
        if len(known) >= 3:
            words = [known.pop(int(rng.random() * len(known))) for _ in range(3)]
            yield Pair(words, slots["hero"], ending, story)
            count -= 1


# ======================================================================================
# CHECKS: what can stop the run
# ======================================================================================


def stop(what, why, command):
    """End the run with the three lines every script of the course uses for mistakes."""
    print(f"{what}\n{why}\n{command}", file=sys.stderr)
    raise SystemExit(1)


def read_arguments(arguments):
    """Return (count, seed) from the command line; a mistake ends the run."""
    command = "Run: python lessons/practice_stories.py 5"
    if len(arguments) > 2:
        stop(
            f"Too many arguments: {' '.join(arguments)}",
            "Two are understood: how many stories, and a seed.",
            command,
        )
    for argument in arguments:
        if not re.fullmatch(r"[0-9]{1,9}", argument):
            stop(
                f"Not a whole number: {argument!r}",
                "How many stories, and the seed after it, are whole numbers like 5.",
                command,
            )
    count = int(arguments[0]) if arguments else 3
    seed = int(arguments[1]) if len(arguments) == 2 else 1
    if count == 0:
        stop("0 stories would print nothing.", "The smallest number is 1.", command)
    return count, seed


# ======================================================================================
# MAIN
# ======================================================================================


def main():
    count, seed = read_arguments(sys.argv[1:])
    print("\n\n".join(stories(count, seed)))


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()  # now, while we can still answer
    except BrokenPipeError:  # the reader left: python lessons/practice_stories.py 9 | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        stop("Stopped by Ctrl-C.", "The stories above are whole.", "Run it again for more.")
