"""The checker's private file: an attempt is a request, an event one of its payloads, a copy a record of it."""

TABLES = (
    "CREATE TABLE attempt (attempt TEXT PRIMARY KEY, first INTEGER, events INTEGER, answered INTEGER) WITHOUT ROWID",
    """CREATE TABLE event (
        n INTEGER PRIMARY KEY,
        journal INTEGER NOT NULL,
        line INTEGER NOT NULL,
        "index" INTEGER NOT NULL,
        sent_at INTEGER NOT NULL,
        early INTEGER NOT NULL,
        outcome INTEGER NOT NULL DEFAULT 1,
        answered_at INTEGER,
        event_id TEXT,
        receipt TEXT,
        read_back INTEGER NOT NULL DEFAULT 0,
        place_taken INTEGER NOT NULL DEFAULT 0,
        keyed INTEGER NOT NULL,
        identity BLOB NOT NULL,
        ordered_by TEXT,
        content TEXT NOT NULL
    )""",
    "CREATE TABLE copy (identity BLOB NOT NULL, receipt TEXT NOT NULL, read_back INTEGER NOT NULL)",
)
# Made when all journals are in, which is faster than one entry at a time.
INDEXES = (
    "CREATE INDEX event_receipt ON event (receipt) WHERE receipt IS NOT NULL",
    "CREATE INDEX event_id ON event (event_id) WHERE event_id IS NOT NULL",
    "CREATE INDEX event_identity ON event (identity)",
    "CREATE INDEX copy_identity ON copy (identity)",
)
INSERT = """INSERT INTO event (journal, line, "index", sent_at, early, identity, keyed, ordered_by, content)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
UPDATE = "UPDATE event SET answered_at = ?, outcome = ?, event_id = ?, receipt = ? WHERE n = ?"
SELECT = 'SELECT n, journal, line, "index", event_id, receipt, identity, content FROM event'
SELECT_ATTEMPTS = """SELECT identity, n, outcome, receipt, read_back, place_taken, early FROM event
    ORDER BY identity, outcome, n"""
SELECT_CHANGED_IDS = """SELECT min(n), count(DISTINCT event_id) FROM event WHERE keyed AND event_id IS NOT NULL
    GROUP BY identity HAVING count(DISTINCT event_id) > 1"""
SELECT_SHARED_IDS = """SELECT max(n), count(DISTINCT identity) FROM event WHERE event_id IS NOT NULL
    GROUP BY event_id HAVING count(DISTINCT identity) > 1"""
SELECT_ORDERED = """SELECT journal, ordered_by, n, sent_at, answered_at, receipt FROM event
    WHERE outcome = 0 AND ordered_by IS NOT NULL AND receipt IS NOT NULL
    ORDER BY journal, ordered_by, n"""
