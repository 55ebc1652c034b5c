/*
 * Copyright (C) nginx-nango authors
 *
 * See nango_show.h.  A body's own bytes are kept: what a client parses is what
 * Nango sent, and numbers beyond 2^53 or lone surrogates are none of our
 * business.
 */


#include "nango_show.h"

#include "nango_json.h"
#include "nango_utf8.h"


static void nango_show_json(nango_text_t *t, nango_str_t body, unsigned show);
static void nango_show_base64(nango_text_t *t, nango_str_t body,
    unsigned show);
static int nango_show_hidden(nango_str_t name, unsigned show);
static void nango_show_raw(nango_text_t *t, nango_str_t s, unsigned show);


void
nango_show_lines(nango_text_t *t, const unsigned char *log,
    const nango_logged_t *event)
{
    nango_text_string(t, "id: ");
    nango_text_hex(t, log, NANGO_STORE_ID_LEN);
    nango_text_string(t, ":");
    nango_text_number(t, event->sequence);
    nango_text_string(t, "\nevent: ");

    /* Printable ASCII, unless a page was damaged. */

    nango_show_raw(t, nango_logged_type(event->record), NANGO_SHOW_LINES);

    nango_text_string(t, "\ndata: ");
}


void
nango_show_head(nango_text_t *t, const nango_logged_t *event, unsigned show)
{
    const nango_record_t  *rec;

    static const char  *sources[] = { "nango", "repair", "edge" };

    rec = event->record;

    nango_text_string(t, "{\"sequence\":");
    nango_text_number(t, event->sequence);
    nango_text_string(t, ",\"received_at\":");
    nango_text_time(t, rec->received_at);

    nango_text_string(t, ",\"source\":");

    if ((size_t) rec->source < sizeof(sources) / sizeof(sources[0])) {
        nango_text_string(t, "\"");
        nango_text_string(t, sources[rec->source]);
        nango_text_string(t, "\"");

    } else {
        nango_text_string(t, "null");
    }

    nango_text_string(t, ",\"type\":");
    nango_text_json(t, nango_logged_type(rec));

    nango_text_string(t, ",\"operation\":");

    if (rec->operation != NANGO_OP_NONE) {
        nango_text_string(t, "\"");
        nango_text_string(t, nango_op_name(rec->operation));
        nango_text_string(t, "\"");

    } else {
        nango_text_string(t, "null");
    }

    nango_text_string(t, ",\"integration\":");

    if (rec->integration.len != 0) {
        nango_text_json(t, rec->integration);

    } else {
        nango_text_string(t, "null");
    }

    nango_text_string(t, ",\"id\":");

    if (event->key != NULL) {
        nango_text_string(t, "\"");
        nango_text_hex(t, event->key, NANGO_KEY_LEN);
        nango_text_string(t, "\"");

    } else {
        nango_text_string(t, "null");
    }

    if (show & NANGO_SHOW_ID) {
        nango_text_string(t, ",\"connection_id\":");

        if (rec->connection_id.len != 0) {
            nango_text_json(t, rec->connection_id);

        } else {
            nango_text_string(t, "null");
        }
    }
}


void
nango_show_owner(nango_text_t *t, const nango_tag_t *tags, size_t n)
{
    size_t  i;

    nango_text_string(t, ",\"owner\":{");

    for (i = 0; i < n; i++) {
        nango_text_string(t, i ? "," : "");
        nango_text_json(t, tags[i].name);
        nango_text_string(t, ":");
        nango_text_json(t, tags[i].value);
    }

    nango_text_string(t, "}");
}


void
nango_show_body(nango_text_t *t, const nango_record_t *record, unsigned show)
{
    nango_str_t  body;

    body = record->body;

    if (record->body_file) {
        nango_text_string(t, ",\"body_format\":\"file\",\"body_length\":");
        nango_text_number(t, record->body_len);
        nango_text_string(t, ",\"body\":null}");

    } else if (!nango_utf8_valid(body)) {
        nango_text_string(t, ",\"body_format\":\"base64\",\"body\":");
        nango_show_base64(t, body, show);
        nango_text_string(t, "}");

    } else {

        switch (nango_json_members(body, NULL, 0)) {

        case NANGO_JSON_OBJECT:
        case NANGO_JSON_OTHER:
            nango_text_string(t, ",\"body_format\":\"json\",\"body\":");
            nango_show_json(t, body, show);
            break;

        default: /* NANGO_JSON_INVALID */
            nango_text_string(t, ",\"body_format\":\"text\",\"body\":");
            nango_text_json(t, body);
        }

        nango_text_string(t, "}");
    }
}


/* As it is, but for the members that are to be hidden. */

static void
nango_show_json(nango_text_t *t, nango_str_t body, unsigned show)
{
    int                first;
    nango_str_t        name, value;
    nango_json_walk_t  walk;

    if ((show & (NANGO_SHOW_ID|NANGO_SHOW_TAGS))
        == (NANGO_SHOW_ID|NANGO_SHOW_TAGS)
        || !nango_json_walk(&walk, body)
        || !walk.object)
    {
        nango_show_raw(t, body, show);
        return;
    }

    nango_text_string(t, "{");
    first = 1;

    while (nango_json_next(&walk, &name, &value) == 1) {

        if (nango_show_hidden(name, show)) {
            continue;
        }

        nango_text_string(t, first ? "" : ",");
        nango_show_raw(t, name, show);
        nango_text_string(t, ":");
        nango_show_raw(t, value, show);
        first = 0;
    }

    nango_text_string(t, "}");
}


/* What is JSON but for a string that is no UTF-8 has such members as well. */

static void
nango_show_base64(nango_text_t *t, nango_str_t body, unsigned show)
{
    nango_text_t  shown;

    if (nango_json_members(body, NULL, 0) != NANGO_JSON_OBJECT) {
        nango_text_base64(t, body);
        return;
    }

    memset(&shown, 0, sizeof(nango_text_t));

    nango_show_json(&shown, body, show & ~(unsigned) NANGO_SHOW_LINES);

    nango_text_base64(t, nango_str(shown.data, shown.len));

    if (shown.failed) {
        t->failed = 1;
    }

    nango_text_free(&shown);
}


static int
nango_show_hidden(nango_str_t name, unsigned show)
{
    size_t         i;
    nango_str_t    decoded;
    unsigned char  buf[64];

    static const struct {
        unsigned     show;
        const char  *name;
    } hidden[] = {
        { NANGO_SHOW_ID, "connectionId" },
        { NANGO_SHOW_ID, "connection_id" },
        { NANGO_SHOW_TAGS, "tags" },
        { NANGO_SHOW_TAGS, "endUser" },
        { NANGO_SHOW_TAGS, "end_user" }
    };

    if (nango_json_string(name, buf, sizeof(buf), &decoded)
        != NANGO_JSON_STRING_OK)
    {
        return 0;
    }

    for (i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++) {

        if (!(show & hidden[i].show)
            && nango_str_is(decoded, hidden[i].name))
        {
            return 1;
        }
    }

    return 0;
}


/* Line ends are white space in JSON that is valid. */

static void
nango_show_raw(nango_text_t *t, nango_str_t s, unsigned show)
{
    size_t  i, from;

    if (!(show & NANGO_SHOW_LINES)) {
        nango_text_add(t, s);
        return;
    }

    from = 0;

    for (i = 0; i < s.len; i++) {

        if (s.data[i] == '\n' || s.data[i] == '\r') {
            nango_text_add(t, nango_str(s.data + from, i - from));
            nango_text_string(t, "\ndata: ");
            from = i + 1;
        }
    }

    nango_text_add(t, nango_str(s.data + from, s.len - from));
}
