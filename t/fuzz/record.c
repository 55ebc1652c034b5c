/*
 * Copyright (C) nginx-nango authors
 *
 * Records as they come from a disk: any bytes.  What is taken for a record
 * lies inside of them and is written as it was read; and a record that is made
 * of the input is read as it was written.
 */


#include "fuzz.h"

#include "nango_rows.h"


static const unsigned char  key[NANGO_KEY_LEN] = { 1, 2, 3 };


static void
check_records_equal(const nango_record_t *a, const nango_record_t *b)
{
    check(a->source == b->source && a->type == b->type);
    check(a->operation == b->operation && a->success == b->success);
    check(a->received_at == b->received_at);
    check(memcmp(a->hmac, b->hmac, NANGO_HMAC_LEN) == 0);
    check(nango_str_eq(a->environment, b->environment));
    check(nango_str_eq(a->type_name, b->type_name));
    check(nango_str_eq(a->integration, b->integration));
    check(nango_str_eq(a->connection_id, b->connection_id));
    check(nango_str_eq(a->headers, b->headers));
    check(nango_str_eq(a->body, b->body));
    check(a->body_file == b->body_file && a->body_len == b->body_len);
}


static void
check_connections_equal(const nango_connection_t *a,
    const nango_connection_t *b)
{
    size_t  i;

    check(memcmp(a->key, b->key, NANGO_KEY_LEN) == 0);
    check(a->status == b->status && a->ntags == b->ntags);
    check(a->created_sequence == b->created_sequence);
    check(a->updated_sequence == b->updated_sequence);
    check(a->created_at == b->created_at && a->updated_at == b->updated_at);
    check(a->status_since == b->status_since);
    check(a->checked_at == b->checked_at && a->repeats == b->repeats);
    check(memcmp(a->creation_hmac, b->creation_hmac, NANGO_HMAC_LEN) == 0);
    check(nango_str_eq(a->environment, b->environment));
    check(nango_str_eq(a->integration, b->integration));
    check(nango_str_eq(a->connection_id, b->connection_id));
    check(nango_str_eq(a->provider, b->provider));
    check(nango_str_eq(a->error_type, b->error_type));
    check(nango_str_eq(a->error_text, b->error_text));

    for (i = 0; i < a->ntags; i++) {
        check(nango_str_eq(a->tags[i].name, b->tags[i].name));
        check(nango_str_eq(a->tags[i].value, b->tags[i].value));
    }
}


/* Writes it and reads it again; the bytes, for who wants to compare. */

static nango_str_t
record_again(const nango_record_t *rec)
{
    size_t           len;
    unsigned char   *p;
    nango_record_t   again;

    len = nango_record_size(rec);

    if (len == 0) {
        return nango_str(NULL, 0);
    }

    p = malloc(len);
    check(p != NULL);

    nango_record_encode(rec, p);

    check(nango_record_decode(&again, nango_str(p, len)) == 0);
    check_records_equal(rec, &again);

    return nango_str(p, len);
}


static nango_str_t
connection_again(const nango_connection_t *c)
{
    size_t               len;
    unsigned char       *p;
    nango_connection_t   again;

    len = nango_connection_size(c);

    if (len == 0) {
        return nango_str(NULL, 0);
    }

    p = malloc(len);
    check(p != NULL);

    nango_connection_encode(c, p);

    check(nango_connection_decode(&again, key, nango_str(p, len)) == 0);
    check_connections_equal(c, &again);

    return nango_str(p, len);
}


static void
record_read(nango_str_t data)
{
    int             rc;
    nango_str_t     again;
    nango_record_t  rec, zero;

    memset(&zero, 0, sizeof(zero));
    memset(&rec, 0xa5, sizeof(rec));

    rc = nango_record_decode(&rec, data);

    check((rc == 1) == (data.len != 0 && data.data[0] != 1));

    if (rc != 0) {
        check(rc == 1 || rc == -1);
        check_records_equal(&rec, &zero);
        return;
    }

    check(inside(rec.environment, data.data, data.len));
    check(inside(rec.type_name, data.data, data.len));
    check(inside(rec.integration, data.data, data.len));
    check(inside(rec.connection_id, data.data, data.len));
    check(inside(rec.headers, data.data, data.len));
    check(inside(rec.body, data.data, data.len));
    check(rec.body.data + rec.body.len == data.data + data.len);
    check(!rec.body_file || rec.body.len == NANGO_BODY_NAME_LEN);
    check(rec.body_file || rec.body.len == rec.body_len);

    again = record_again(&rec);

    /* but for what the layout keeps free */

    check(again.len == data.len);
    check(memcmp(again.data, data.data, 5) == 0);
    check(memcmp(again.data + 6, data.data + 6, 48) == 0);
    check(memcmp(again.data + 56, data.data + 56, 4) == 0);
    check(memcmp(again.data + 64, data.data + 64, data.len - 64) == 0);

    exact_free(again);
}


static void
connection_read(nango_str_t data)
{
    int                  rc;
    size_t               i;
    nango_str_t          again;
    nango_connection_t  *c;

    /* on the heap, so that more tags than there may be are seen */

    c = malloc(sizeof(nango_connection_t));
    check(c != NULL);
    memset(c, 0xa5, sizeof(nango_connection_t));

    rc = nango_connection_decode(c, key, data);

    check(memcmp(c->key, key, NANGO_KEY_LEN) == 0);
    check((rc == 1) == (data.len != 0 && data.data[0] != 1));

    if (rc != 0) {
        check(rc == 1 || rc == -1);
        check(!nango_connection_indexed(c));
        free(c);
        return;
    }

    check(c->status >= NANGO_STATUS_VALID && c->status <= NANGO_STATUS_DELETED);
    check(c->ntags <= NANGO_EVENT_TAGS_MAX);
    check(inside(c->environment, data.data, data.len));
    check(inside(c->integration, data.data, data.len));
    check(inside(c->connection_id, data.data, data.len));
    check(inside(c->provider, data.data, data.len));
    check(inside(c->error_type, data.data, data.len));
    check(inside(c->error_text, data.data, data.len));

    for (i = 0; i < c->ntags; i++) {
        check(inside(c->tags[i].name, data.data, data.len));
        check(inside(c->tags[i].value, data.data, data.len));
    }

    again = connection_again(c);

    check(again.len == data.len);
    check(memcmp(again.data, data.data, 4) == 0);
    check(memcmp(again.data + 8, data.data + 8, 100) == 0);
    check(memcmp(again.data + 112, data.data + 112, data.len - 112) == 0);

    exact_free(again);
    free(c);
}


static void
subscribed_read(nango_str_t data)
{
    int                  rc;
    size_t               len;
    unsigned char       *again;
    nango_subscribed_t   s;

    memset(&s, 0xa5, sizeof(s));

    rc = nango_subscribed_decode(&s, data);

    check((rc == 1) == (data.len != 0 && data.data[0] != 1));

    if (rc != 0) {
        check(rc == 1 || rc == -1);
        check(s.cursor == 0 && s.environment.data == NULL);
        return;
    }

    check(inside(s.environment, data.data, data.len));
    check(inside(s.name, data.data, data.len));

    len = nango_subscribed_size(&s);
    check(len == data.len);

    again = malloc(len);
    check(again != NULL);

    nango_subscribed_encode(&s, again);

    /* but for flags that are not known, and what is kept free */

    check(again[1] == (data.data[1] & 1));
    check(memcmp(again + 2, data.data + 2, 4) == 0);
    check(memcmp(again + 8, data.data + 8, len - 8) == 0);

    free(again);
}


static void
row_read(nango_str_t data)
{
    int            rc;
    nango_row_t    row;
    unsigned char  again[NANGO_ROW_LEN];

    memset(&row, 0xa5, sizeof(row));

    rc = nango_row_decode(&row, data);

    check((rc == 0) == (data.len == NANGO_ROW_LEN && data.data[0] == 1
                        && (data.data[1] == 1 || data.data[1] == 2)));

    if (rc == 0) {
        nango_row_encode(&row, again);
        check(memcmp(again, data.data, NANGO_ROW_LEN) == 0);
    }
}


static void
stored_read(nango_str_t data)
{
    uint64_t     stored;
    nango_str_t  name;

    if (nango_stored_decode(data, &name, &stored) == 0) {
        check(inside(name, data.data, data.len));
        check(data.data[0] == 1);
        check(stored == nango_get_le(data.data + 8, 8));
    }
}


/* A length near one of the limits, or a small one. */

static nango_str_t
filled(nango_str_t *in, size_t limit)
{
    size_t                n;
    static unsigned char  bytes[512 * 1024];

    n = take_byte(in);

    if (n >= 252) {
        return nango_str(bytes, limit + n - 253);
    }

    return take_bytes(in, n);
}


static void
record_made(nango_str_t in)
{
    int             fits;
    nango_record_t  rec;

    memset(&rec, 0, sizeof(rec));

    rec.source = take_byte(&in);
    rec.type = take_byte(&in);
    rec.operation = take_byte(&in);
    rec.success = take_byte(&in);
    rec.body_file = take_byte(&in) & 1;
    rec.received_at = take_byte(&in) * UINT64_C(72340172838076673);

    rec.environment = filled(&in, UINT16_MAX);
    rec.type_name = filled(&in, UINT16_MAX);
    rec.integration = filled(&in, UINT16_MAX);
    rec.connection_id = filled(&in, UINT16_MAX);
    rec.headers = filled(&in, NANGO_RECORD_HEADERS_MAX);

    rec.body = rec.body_file ? take_bytes(&in, NANGO_BODY_NAME_LEN)
                             : filled(&in, NANGO_RECORD_BODY_MAX);
    rec.body_len = rec.body_file ? take_byte(&in) * 1000003 : rec.body.len;

    fits = rec.environment.len <= 65535 && rec.type_name.len <= 65535
           && rec.integration.len <= 65535 && rec.connection_id.len <= 65535
           && rec.headers.len <= 16384
           && (rec.body_file ? rec.body.len == 32 : rec.body.len <= 262144);

    in = record_again(&rec);
    check((in.data != NULL) == fits);
    exact_free(in);
}


static void
connection_made(nango_str_t in)
{
    int                 fits;
    size_t              i;
    nango_str_t        *s;
    nango_connection_t  c;

    memset(&c, 0, sizeof(c));

    memcpy(c.key, key, NANGO_KEY_LEN);

    c.status = NANGO_STATUS_VALID + take_byte(&in) % 3;
    c.created_sequence = take_byte(&in) * UINT64_C(72340172838076673);
    c.updated_sequence = take_byte(&in) * UINT64_C(72340172838076673);
    c.checked_at = take_byte(&in);
    c.repeats = take_byte(&in);
    c.ntags = take_byte(&in) % (NANGO_EVENT_TAGS_MAX + 2);

    fits = (c.ntags <= NANGO_EVENT_TAGS_MAX);

    for (i = 0; i < 6; i++) {
        s = (i == 0) ? &c.environment : (i == 1) ? &c.integration
            : (i == 2) ? &c.connection_id : (i == 3) ? &c.provider
            : (i == 4) ? &c.error_type : &c.error_text;

        *s = filled(&in, UINT16_MAX);
        fits = fits && s->len <= 65535;
    }

    for (i = 0; i < c.ntags && i < NANGO_EVENT_TAGS_MAX; i++) {
        c.tags[i].name = filled(&in, UINT16_MAX);
        c.tags[i].value = filled(&in, UINT16_MAX);

        fits = fits && c.tags[i].name.len <= 65535
               && c.tags[i].value.len <= 65535;
    }

    in = connection_again(&c);
    check((in.data != NULL) == fits);
    exact_free(in);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    nango_str_t  in;

    in = nango_str(data, size);

    switch (take_byte(&in)) {

    case 'r':
        record_read(in);
        break;

    case 'c':
        connection_read(in);
        break;

    case 's':
        subscribed_read(in);
        break;

    case 'o':
        row_read(in);
        break;

    case 'e':
        stored_read(in);
        break;

    case 'R':
        record_made(in);
        break;

    case 'C':
        connection_made(in);
        break;
    }

    return 0;
}
