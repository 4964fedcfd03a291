"""Lists the words that exercises about words are made of."""

_TEXT = (
    "air ant arm art bag bed bee bird boat bone book box bread bus cake camel candle car card cat chair cheese child city "
    "clock cloud coat coin corn cow cup desk dog door dream duck dust ear earth egg eye face farm fire fish flag floor "
    "flower forest fox frog fruit game garden gate glass goat gold grass hair hand hat head hill honey horse house ice "
    "island jacket juice key king kite knife lake lamp leaf lemon letter lion market milk mirror money moon mouse music "
    "nail neck nest night nose ocean onion orange oven owl paper park pencil piano pig plane planet plant plate pocket "
    "potato queen rain ring river road rock roof room rose salt sand school sea seed sheep ship shirt shoe silver sister "
    "snow song spoon star stone storm street sugar summer sun table tail tent tiger time tooth town train tree truck uncle "
    "valley violin voice wall water wheel wind window winter wolf wood zebra"
)
WORDS = tuple(_TEXT.split())
