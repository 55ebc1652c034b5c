/*
 * Copyright (C) nginx-nango authors
 *
 * An event of any bytes as JSON: one object, with its body as it was or said
 * to be something else, and without what is not exposed; as an event stream
 * the same, in lines that all have a name.
 */


#include "fuzz.h"

#include "nango_json.h"
#include "nango_show.h"
#include "nango_utf8.h"


/* All of an event, owned. */

static nango_text_t
shown(const nango_logged_t *event, const nango_tag_t *tag, unsigned show)
{
    nango_text_t  t;

    memset(&t, 0, sizeof(t));

    nango_show_head(&t, event, show);
    nango_show_owner(&t, tag, 1);
    nango_show_body(&t, event->record, show);
    check(!t.failed);

    return t;
}


/* What a client joins of a stream's lines, in their place. */

static void
joined(nango_text_t *t)
{
    size_t          i, n;
    unsigned char  *p;

    p = t->data;

    for (i = 0, n = 0; i < t->len; i++) {
        check(p[i] != '\r');
        p[n++] = p[i];

        if (p[i] == '\n') {
            check(t->len - i > 6 && memcmp(p + i + 1, "data: ", 6) == 0);
            i += 6;
        }
    }

    t->len = n;
}


static void
check_hidden(nango_str_t body, unsigned show)
{
    int                  i;
    nango_json_member_t  m[] = {
        { S("connectionId"), nango_null_str },
        { S("connection_id"), nango_null_str },
        { S("tags"), nango_null_str },
        { S("endUser"), nango_null_str },
        { S("end_user"), nango_null_str }
    };

    if (nango_json_members(body, m, 5) != NANGO_JSON_OBJECT) {
        return;
    }

    for (i = 0; i < 5; i++) {
        check((show & (i < 2 ? NANGO_SHOW_ID : NANGO_SHOW_TAGS))
              || m[i].value.data == NULL);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned              show;
    nango_str_t           in, body;
    nango_tag_t           tag;
    nango_text_t          t, lines;
    nango_record_t        rec;
    nango_logged_t        event;
    nango_json_member_t   m[] = {
        { S("body"), nango_null_str }, { S("body_format"), nango_null_str },
        { S("owner"), nango_null_str }, { S("id"), nango_null_str },
        { S("connection_id"), nango_null_str }
    };

    in = nango_str(data, size);

    memset(&rec, 0, sizeof(rec));
    memset(&event, 0, sizeof(event));

    rec.type = NANGO_TYPE_SYNC;
    rec.operation = take_byte(&in) % 6;
    rec.source = take_byte(&in) % 4;
    rec.received_at = (uint64_t) take_byte(&in) << 50;
    rec.type_name = take(&in, '\n');
    rec.integration = take(&in, '\n');
    rec.connection_id = take(&in, '\n');
    tag.name = take(&in, '\n');
    tag.value = take(&in, '\n');
    body = exact(in);
    rec.body = body;

    event.record = &rec;
    event.sequence = size;

    for (show = 0; show < 4; show++) {
        t = shown(&event, &tag, show);
        lines = shown(&event, &tag, show | NANGO_SHOW_LINES);

        /* Both are JSON; but for ends of lines they are the same. */

        check(nango_utf8_valid(nango_str(t.data, t.len)));

        if (nango_json_members(nango_str(t.data, t.len), m, 5)
            != NANGO_JSON_OBJECT)
        {
            /* One level less than a body alone may have. */

            check(nango_json_members(body, NULL, 0) != NANGO_JSON_INVALID);

        } else {
            check((m[4].value.data != NULL) == (show & NANGO_SHOW_ID));
            check(m[2].value.data != NULL && m[3].value.data != NULL);

            if (nango_json_is(m[1].value, "\"json\"")) {
                check_hidden(m[0].value, show);

                if (show == (NANGO_SHOW_ID|NANGO_SHOW_TAGS)) {
                    check(m[0].value.len <= body.len);
                }

            } else {
                check(m[0].value.len >= 2 && m[0].value.data[0] == '"');
            }
        }

        joined(&lines);
        check(lines.len <= t.len);

        if (memchr(body.data, '\r', body.len) == NULL) {
            check(lines.len == t.len && memcmp(lines.data, t.data, t.len) == 0);
        }

        nango_text_free(&t);
        nango_text_free(&lines);
    }

    exact_free(body);

    return 0;
}
