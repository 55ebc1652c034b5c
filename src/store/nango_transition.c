/*
 * Copyright (C) nginx-nango authors
 *
 * What an event makes of a connection.  The only place that knows it, and a
 * function of its arguments alone, so that a log folded again gives the same
 * state.
 *
 * Two things shape the table.  Nango's retries arrive after newer events, so
 * a deletion blocks whatever is about the connection as it was before, and a
 * creation that was applied once is known by its HMAC.  And Nango forgets a
 * connection's tags when it is reconnected without them, which we do not:
 * without its tags a connection belongs to nobody.
 */


#include "nango_fold.h"


static int nango_transition_id(nango_str_t id);
static int nango_transition_replayed(const nango_connection_t *before,
    const nango_record_t *record);
static nango_effect_e nango_transition_valid(const nango_connection_t *before,
    const nango_record_t *record, const nango_event_t *event,
    uint64_t sequence, nango_connection_t *after);
static nango_effect_e nango_transition_invalid(
    const nango_connection_t *before, const nango_record_t *record,
    const nango_event_t *event, uint64_t sequence, nango_connection_t *after);
static nango_effect_e nango_transition_deleted(
    const nango_connection_t *before, const nango_record_t *record,
    const nango_event_t *event, uint64_t sequence, nango_connection_t *after);
static void nango_transition_name(nango_connection_t *c,
    const nango_record_t *record);
static int nango_transition_take(nango_connection_t *c,
    const nango_event_t *event);
static nango_effect_e nango_transition_end(const nango_connection_t *before,
    const nango_record_t *record, uint64_t sequence, int changed,
    nango_status_e status, nango_connection_t *after);


nango_effect_e
nango_transition(const nango_connection_t *before,
    const nango_record_t *record, const nango_event_t *event,
    uint64_t sequence, nango_connection_t *after)
{
    int  known, deleted;

    *after = *before;

    if (record->type != NANGO_TYPE_AUTH
        || !nango_transition_id(record->integration)
        || !nango_transition_id(record->connection_id))
    {
        return NANGO_EFFECT_NONE;
    }

    known = (before->status != NANGO_STATUS_NONE);

    /* What Nango's own API has confirmed is no late retry. */

    deleted = (before->status == NANGO_STATUS_DELETED
               && record->source != NANGO_SOURCE_REPAIR);

    switch (record->operation) {

    case NANGO_OP_CREATION:

        if (record->success != NANGO_SUCCESS_TRUE) {
            return NANGO_EFFECT_NONE;
        }

        if (deleted || nango_transition_replayed(before, record)) {
            return NANGO_EFFECT_IGNORED;
        }

        return nango_transition_valid(before, record, event, sequence, after);

    case NANGO_OP_OVERRIDE:
    case NANGO_OP_REFRESH:

        switch (record->success) {

        case NANGO_SUCCESS_TRUE:

            if (!known && record->operation == NANGO_OP_REFRESH) {
                return NANGO_EFFECT_NONE;
            }

            if (deleted) {
                return NANGO_EFFECT_IGNORED;
            }

            return nango_transition_valid(before, record, event, sequence,
                                          after);

        case NANGO_SUCCESS_FALSE:

            if (!known) {
                return NANGO_EFFECT_NONE;
            }

            if (before->status == NANGO_STATUS_DELETED) {
                return NANGO_EFFECT_IGNORED;
            }

            return nango_transition_invalid(before, record, event, sequence,
                                            after);

        default:
            return NANGO_EFFECT_NONE;
        }

    case NANGO_OP_DELETION:

        /* A deletion says nothing of success, or that it was one. */

        if (record->success == NANGO_SUCCESS_FALSE) {
            return NANGO_EFFECT_NONE;
        }

        return nango_transition_deleted(before, record, event, sequence,
                                        after);

    default:
        return NANGO_EFFECT_NONE;
    }
}


static int
nango_transition_id(nango_str_t id)
{
    return id.len != 0 && id.len <= NANGO_ID_MAX && nango_utf16_len(id) >= 0;
}


/* An unsigned creation, all zeros, is nobody's replay. */

static int
nango_transition_replayed(const nango_connection_t *before,
    const nango_record_t *record)
{
    static const unsigned char  none[NANGO_HMAC_LEN];

    /* A tombstone gets here only where a repair is to lift it. */

    return (before->status == NANGO_STATUS_VALID
            || before->status == NANGO_STATUS_INVALID)
           && memcmp(record->hmac, none, NANGO_HMAC_LEN) != 0
           && memcmp(record->hmac, before->creation_hmac, NANGO_HMAC_LEN) == 0;
}


static nango_effect_e
nango_transition_valid(const nango_connection_t *before,
    const nango_record_t *record, const nango_event_t *event,
    uint64_t sequence, nango_connection_t *after)
{
    int  changed;

    nango_transition_name(after, record);

    changed = nango_transition_take(after, event);

    if (record->operation == NANGO_OP_CREATION) {
        memcpy(after->creation_hmac, record->hmac, NANGO_HMAC_LEN);
        changed = 1;
    }

    /* A tombstone of a connection that was never seen alive has none. */

    if (after->created_sequence == 0) {
        after->created_sequence = sequence;
        after->created_at = record->received_at;
    }

    after->error_type = nango_str(NULL, 0);
    after->error_text = nango_str(NULL, 0);

    return nango_transition_end(before, record, sequence, changed,
                                NANGO_STATUS_VALID, after);
}


static nango_effect_e
nango_transition_invalid(const nango_connection_t *before,
    const nango_record_t *record, const nango_event_t *event,
    uint64_t sequence, nango_connection_t *after)
{
    int  changed;

    changed = nango_transition_take(after, event);

    /* One that could not be read does not hide the one that is known. */

    if ((event->error_type.len != 0 || event->error_text.len != 0)
        && !(nango_str_eq(event->error_type, after->error_type)
             && nango_str_eq(event->error_text, after->error_text)))
    {
        after->error_type = event->error_type;
        after->error_text = event->error_text;
        changed = 1;
    }

    return nango_transition_end(before, record, sequence, changed,
                                NANGO_STATUS_INVALID, after);
}


static nango_effect_e
nango_transition_deleted(const nango_connection_t *before,
    const nango_record_t *record, const nango_event_t *event,
    uint64_t sequence, nango_connection_t *after)
{
    if (before->status != NANGO_STATUS_DELETED) {
        nango_transition_name(after, record);
        (void) nango_transition_take(after, event);

        after->error_type = nango_str(NULL, 0);
        after->error_text = nango_str(NULL, 0);
    }

    return nango_transition_end(before, record, sequence, 0,
                                NANGO_STATUS_DELETED, after);
}


static void
nango_transition_name(nango_connection_t *c, const nango_record_t *record)
{
    c->environment = record->environment;
    c->integration = record->integration;
    c->connection_id = record->connection_id;
}


/*
 * Takes over what the event says and the connection does not have yet.  No
 * tags replace nothing.  Whether something is different now.
 */

static int
nango_transition_take(nango_connection_t *c, const nango_event_t *event)
{
    int          changed;
    size_t       i;
    nango_str_t  value;

    changed = 0;

    if (event->provider.len != 0
        && !nango_str_eq(event->provider, c->provider))
    {
        c->provider = event->provider;
        changed = 1;
    }

    if (event->ntags == 0) {
        return changed;
    }

    /* Names are unique on both sides. */

    if (event->ntags == c->ntags) {

        for (i = 0; i < event->ntags; i++) {
            value = nango_connection_tag(c, event->tags[i].name);

            if (value.data == NULL
                || !nango_str_eq(value, event->tags[i].value))
            {
                break;
            }
        }

        if (i == event->ntags) {
            return changed;
        }
    }

    for (i = 0; i < event->ntags && i < NANGO_EVENT_TAGS_MAX; i++) {
        c->tags[i] = event->tags[i];
    }

    c->ntags = i;

    return 1;
}


static nango_effect_e
nango_transition_end(const nango_connection_t *before,
    const nango_record_t *record, uint64_t sequence, int changed,
    nango_status_e status, nango_connection_t *after)
{
    after->checked_at = record->received_at;

    if (before->status != status) {
        after->status = status;
        after->status_since = record->received_at;
        after->repeats = 0;
        changed = 1;

    } else if (record->operation != NANGO_OP_CREATION) {
        after->repeats++;
    }

    if (!changed) {
        return NANGO_EFFECT_REPEAT;
    }

    after->updated_sequence = sequence;
    after->updated_at = record->received_at;

    return NANGO_EFFECT_CHANGED;
}
