"""Who is let in."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import BOOTSTRAP, CACHE, HTTP, KEY_CONTRACT, LOOK_UPS, SQL_KEYS, UNIT, WORLDS

KEYS = (
    Mutant(
        name="outage-is-401",
        bug="While the key database is away, every key is said to be unknown.",
        file="ingest.py",
        old="        found = await keys.find(digest(api_key, pepper))\n",
        new="""\
        try:
            found = await keys.find(digest(api_key, pepper))
        except Exception:
            found = None
""",
        tests=(
            f"{UNIT}/test_ingest.py::test_an_outage_never_turns_a_key_away_and_a_bad_key_is_never_an_outage",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="outage-is-answered-401",
        bug="The HTTP routes answer 401 where a key can't be checked.",
        file="adapters/inbound/http/events.py",
        old="            raise Problem(Code.KEYS_UNAVAILABLE) from error\n",
        new="            raise Problem(Code.API_KEY_INVALID) from error\n",
        tests=(
            f"{HTTP}/test_authentication.py::test_a_key_that_cannot_be_checked_is_503_with_retry_after",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="stale-for-ever",
        bug="While the key database is away, a cached key is good without a bound, even if it was revoked.",
        file="policies.py",
        old="        return self._clock() - entry.said_at < self._stale_s\n",
        new="        return bool(self._stale_s)\n",
        tests=(f"{CACHE}::test_a_known_key_is_not_good_for_ever_while_the_database_is_away",),
    ),
    Mutant(
        name="too-old-while-waited-for",
        bug="A key that becomes too old while a slow database is given a moment is said to be unavailable.",
        file="policies.py",
        old="                if self._is_good(entry):  # It may just have become too old.\n                    raise\n",
        new="                raise\n",
        tests=(f"{CACHE}::test_a_key_that_gets_too_old_in_the_moment_of_waiting_waits_for_the_answer",),
    ),
    Mutant(
        name="taken-away-and-served",
        bug="A key that the database no longer knows is good again as soon as the database is away.",
        file="policies.py",
        old="        there.pop(digest, None)\n",
        new="",
        tests=(f"{CACHE}::test_a_key_that_was_taken_away_is_not_good_while_the_database_is_away",),
    ),
    Mutant(
        name="announcement-ignored",
        bug="The announcement that a key was changed is not heeded.",
        file="policies.py",
        old="            entry.doubted = True\n",
        new="            pass\n",
        tests=(f"{CACHE}::test_an_announced_change_is_seen_at_once",),
    ),
    Mutant(
        name="unknown-for-ever",
        bug="A key that was not known once is never looked up again, though it was made meanwhile.",
        file="policies.py",
        old=" and self._clock() - entry.said_at < self._unknown_ttl_s:",
        new=":",
        tests=(f"{CACHE}::test_an_unknown_key_is_looked_up_again_after_that",),
    ),
    Mutant(
        name="expiry-ignored",
        bug="A key that has expired goes on opening.",
        file="ingest.py",
        old="        if found.expires_at is not None and found.expires_at <= now():\n",
        new="        if found.expires_at is not None and found.expires_at > now():\n",
        tests=(f"{UNIT}/test_ingest.py::test_each_case_of_a_key_has_its_own_answer", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="key-in-the-log",
        bug="The log line of a request has its API key.",
        file="adapters/inbound/http/access.py",
        old='        "request_id": exchange.request_id,\n        "http.route": exchange.route,\n',
        new="""\
        "request_id": exchange.request_id,
        "key": exchange.headers.get("x-cs-api-key", ""),
        "http.route": exchange.route,
""",
        tests=(f"{HTTP}/test_edge.py::test_no_line_has_a_key_a_payload_a_user_or_the_query", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="revoked-by-our-clock",
        bug="A key revoked by a clock ahead of ours goes on opening until ours gets there.",
        file="ingest.py",
        old="        if found.revoked_at is not None:\n",
        new="        if found.revoked_at is not None and found.revoked_at <= now():\n",
        tests=(f"{UNIT}/test_ingest.py::test_each_case_of_a_key_has_its_own_answer",),
    ),
    Mutant(
        name="old-pepper-forgotten",
        bug="Keys under the older of two peppers are unknown.",
        file="ingest.py",
        old="    for pepper in peppers:\n",
        new="    for pepper in peppers[:1]:\n",
        tests=(f"{UNIT}/test_ingest.py::test_each_case_of_a_key_has_its_own_answer",),
    ),
    Mutant(
        name="age-counts-from-the-answer",
        bug="What was read of a key counts as fresh from the moment of the answer, however old the read is by then.",
        file="policies.py",
        old="        self._remember(digest, _Known(key, asked_at, doubted",
        new="        self._remember(digest, _Known(key, self._clock(), doubted",
        tests=(f"{CACHE}::test_a_key_is_as_old_as_the_question_about_it",),
    ),
    Mutant(
        name="read-before-the-announcement",
        bug="What was read of a key while its change was announced is trusted.",
        file="policies.py",
        old="doubted=changes != self._changes",
        new="doubted=False",
        tests=(f"{CACHE}::test_what_was_read_while_a_change_was_announced_is_not_trusted",),
    ),
    Mutant(
        name="leaving-client-takes-the-answer",
        bug="A client that leaves cancels the look-up that others wait for, too.",
        file="policies.py",
        old="        return await asyncio.shield(task)\n",
        new="        return await task\n",
        tests=(f"{CACHE}::test_a_client_that_leaves_takes_no_answer_from_others",),
    ),
    Mutant(
        name="flood-of-unknown-keys",
        bug="A flood of unknown keys reaches the database.",
        file="policies.py",
        old="        if digest not in self._lookups and len(self._lookups) >= self._lookups_max:\n",
        new="        if digest not in self._lookups and len(self._unknown) > self._entries_max:\n",
        tests=(f"{CACHE}::test_a_flood_of_unknown_keys_is_capped",),
    ),
    Mutant(
        name="cache-left-out",
        bug="The service is put together without the cache of keys: each request asks the database.",
        file="bootstrap.py",
        old="    authenticate = Singleton(_authenticate, known_keys, settings)\n",
        new="    authenticate = Singleton(_authenticate, keys, settings)\n",
        tests=(f"{BOOTSTRAP}::test_a_known_key_is_good_while_its_database_is_away",),
    ),
    Mutant(
        name="nobody-listens",
        bug="The service is put together without the announcements of changed keys.",
        file="bootstrap.py",
        old='    if hasattr(keys, "watch"):\n',
        new='    if hasattr(keys, "watches"):\n',
        tests=(f"{BOOTSTRAP}::test_a_change_that_the_key_store_announces_is_seen_at_once",),
    ),
    Mutant(
        name="two-keys-taken",
        bug="Of two keys in one request one is taken, and a proxy in front may have looked at the other.",
        file="adapters/inbound/http/asked.py",
        old="    if key is not None:\n        raise",
        new="    if key is not None and key == authorization:\n        raise",
        tests=(f"{HTTP}/test_authentication.py::test_two_keys_are_400",),
    ),
    Mutant(
        name="key-without-pepper",
        bug="The digest of a key is made without the pepper, so that a stolen database is enough to try keys.",
        file="domain/key.py",
        old="inner, outer = _begun(pepper)\n",
        new='inner, outer = _begun(b"pepper")\n',
        tests=(f"{UNIT}/domain/test_key.py::test_another_pepper_gives_another_digest",),
    ),
)

DATABASE = (
    Mutant(
        name="database-error-is-unknown",
        bug="The key store answers that it does not know the key when the database can't be asked.",
        file="adapters/outbound/sql/keys.py",
        old="        row = await self._look_ups.find(digest)\n",
        new="""\
        try:
            row = await self._look_ups.find(digest)
        except Unavailable:
            return None
""",
        tests=(
            f"{SQL_KEYS}::test_a_table_that_is_lost_while_serving_is_unavailable",
            f"{KEY_CONTRACT}::test_a_closed_store_can_tell_nothing",
        ),
    ),
    Mutant(
        name="key-of-another",
        bug="Of clients whose keys are looked up by one query each gets the first key that it found.",
        file="adapters/outbound/sql/look_ups.py",
        old="        return (await asyncio.shield(query.answer)).get(digest)\n",
        new="        return next(iter((await asyncio.shield(query.answer)).values()), None)\n",
        tests=(
            f"{LOOK_UPS}::test_look_ups_at_the_same_moment_share_a_query_and_each_gets_its_own_answer",
            f"{KEY_CONTRACT}::test_overlapping_look_ups_each_get_their_own_answer",
        ),
    ),
    Mutant(
        name="leaving-client-takes-the-query",
        bug="A client that leaves cancels the query that others wait for, too.",
        file="adapters/outbound/sql/look_ups.py",
        old="        return (await asyncio.shield(query.answer)).get(digest)\n",
        new="        return (await query.answer).get(digest)\n",
        tests=(f"{LOOK_UPS}::test_a_client_that_leaves_takes_no_answer_from_others",),
    ),
    Mutant(
        name="key-change-not-committed",
        bug="A key that is made or revoked is not committed.",
        file="adapters/outbound/sql/database.py",
        old="            await connection.commit()\n",
        new="",
        tests=(f"{KEY_CONTRACT}::test_a_key_is_found_by_its_digest",),
    ),
    Mutant(
        name="revocation-put-off",
        bug="Revoking a key again moves the moment of its revocation.",
        file="adapters/outbound/sql/keys.py",
        old=".where(api_keys.c.key_id == key_id, later)",
        new=".where(api_keys.c.key_id == key_id)",
        tests=(f"{KEY_CONTRACT}::test_an_earlier_revocation_stands",),
    ),
    Mutant(
        name="revokes-all-keys",
        bug="To revoke one key revokes every key that is not revoked yet.",
        file="adapters/outbound/sql/keys.py",
        old=".where(api_keys.c.key_id == key_id, later)",
        new=".where(later)",
        tests=(f"{KEY_CONTRACT}::test_what_is_done_to_one_key_leaves_the_others",),
    ),
)
