"""The mutants, by what they break. `make mutants` runs them; a test keeps them in step with the source."""

from tests.mutants.mutant import Mutant
from tests.mutants.rows.answers import ANSWERS, BATCHES
from tests.mutants.rows.bounds import BOUNDS, EDGE_OF_HTTP
from tests.mutants.rows.embedded_log import EMBEDDED_LOG
from tests.mutants.rows.events import IDENTITY, RULES_OF_EVENTS
from tests.mutants.rows.kafka import LANES, VERDICTS
from tests.mutants.rows.keys import DATABASE, KEYS
from tests.mutants.rows.librdkafka import LIBRDKAFKA
from tests.mutants.rows.life import LIFE, PROOF
from tests.mutants.rows.producers import AIOKAFKA, GENERATIONS, TOPICS
from tests.mutants.rows.server import ALL_CONNECTIONS, CONNECTIONS

MUTANTS: tuple[Mutant, ...] = (
    *(
        *ANSWERS,
        *BATCHES,
        *IDENTITY,
        *RULES_OF_EVENTS,
        *KEYS,
        *DATABASE,
        *BOUNDS,
        *EDGE_OF_HTTP,
        *CONNECTIONS,
        *ALL_CONNECTIONS,
        *LIFE,
        *PROOF,
    ),
    *(*VERDICTS, *LANES, *GENERATIONS, *AIOKAFKA, *TOPICS, *LIBRDKAFKA, *EMBEDDED_LOG),
)
