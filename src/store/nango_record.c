/*
 * Copyright (C) nginx-nango authors
 *
 * The bytes of an event in the log.  A fixed head with all lengths, then the
 * strings one after the other, so that reading is a check of one sum and no
 * copy.  A record says itself how long each part is and the lengths must add
 * up to exactly what LMDB returned: anything else is no record.
 */


#include "nango_tables.h"


#define NANGO_RECORD_HEAD  72
#define NANGO_RECORD_FILE  0x01

/* Offsets of the head. */
#define NANGO_RECORD_ENVIRONMENT    6
#define NANGO_RECORD_RECEIVED_AT    8
#define NANGO_RECORD_HMAC           16
#define NANGO_RECORD_TYPE_NAME      48
#define NANGO_RECORD_INTEGRATION    50
#define NANGO_RECORD_CONNECTION_ID  52
#define NANGO_RECORD_HEADERS        56
#define NANGO_RECORD_BODY_LEN       64


static inline unsigned char *
nango_record_put(unsigned char *p, nango_str_t s)
{
    if (s.len) {
        memcpy(p, s.data, s.len);
    }

    return p + s.len;
}


/* Strings of no length are absent: the layout cannot tell them apart. */

static inline nango_str_t
nango_record_get(const unsigned char **p, size_t len)
{
    nango_str_t  s;

    s = nango_str(len ? *p : NULL, len);
    *p += len;

    return s;
}


size_t
nango_record_size(const nango_record_t *rec)
{
    if (rec->environment.len > UINT16_MAX
        || rec->type_name.len > UINT16_MAX
        || rec->integration.len > UINT16_MAX
        || rec->connection_id.len > UINT16_MAX
        || rec->headers.len > NANGO_RECORD_HEADERS_MAX)
    {
        return 0;
    }

    if (rec->body_file) {
        if (rec->body.len != NANGO_BODY_NAME_LEN) {
            return 0;
        }

    } else if (rec->body.len > NANGO_RECORD_BODY_MAX) {
        return 0;
    }

    return NANGO_RECORD_HEAD + rec->environment.len + rec->type_name.len
           + rec->integration.len + rec->connection_id.len
           + rec->headers.len + rec->body.len;
}


void
nango_record_encode(const nango_record_t *rec, unsigned char *dst)
{
    unsigned char  *p;

    p = dst;

    memset(p, 0, NANGO_RECORD_HEAD);

    p[0] = NANGO_RECORD_VERSION;
    p[1] = (unsigned char) rec->source;
    p[2] = (unsigned char) rec->type;
    p[3] = (unsigned char) rec->operation;
    p[4] = (unsigned char) rec->success;
    p[5] = rec->body_file ? NANGO_RECORD_FILE : 0;

    nango_put_le(p + NANGO_RECORD_ENVIRONMENT, rec->environment.len, 2);
    nango_put_le(p + NANGO_RECORD_RECEIVED_AT, rec->received_at, 8);
    memcpy(p + NANGO_RECORD_HMAC, rec->hmac, NANGO_HMAC_LEN);
    nango_put_le(p + NANGO_RECORD_TYPE_NAME, rec->type_name.len, 2);
    nango_put_le(p + NANGO_RECORD_INTEGRATION, rec->integration.len, 2);
    nango_put_le(p + NANGO_RECORD_CONNECTION_ID, rec->connection_id.len, 2);
    nango_put_le(p + NANGO_RECORD_HEADERS, rec->headers.len, 4);
    nango_put_le(p + NANGO_RECORD_BODY_LEN,
                 rec->body_file ? rec->body_len : rec->body.len, 8);

    p += NANGO_RECORD_HEAD;

    p = nango_record_put(p, rec->environment);
    p = nango_record_put(p, rec->type_name);
    p = nango_record_put(p, rec->integration);
    p = nango_record_put(p, rec->connection_id);
    p = nango_record_put(p, rec->headers);

    if (rec->body.data != NULL) {
        (void) nango_record_put(p, rec->body);
    }
}


int
nango_record_decode(nango_record_t *rec, nango_str_t data)
{
    size_t                environment, type_name, integration, connection_id;
    size_t                headers, body;
    uint64_t              sum;
    const unsigned char  *p;

    memset(rec, 0, sizeof(nango_record_t));

    if (data.len == 0) {
        return -1;
    }

    p = data.data;

    if (p[0] != NANGO_RECORD_VERSION) {
        return 1;
    }

    if (data.len < NANGO_RECORD_HEAD) {
        return -1;
    }

    environment = nango_get_le(p + NANGO_RECORD_ENVIRONMENT, 2);
    type_name = nango_get_le(p + NANGO_RECORD_TYPE_NAME, 2);
    integration = nango_get_le(p + NANGO_RECORD_INTEGRATION, 2);
    connection_id = nango_get_le(p + NANGO_RECORD_CONNECTION_ID, 2);
    headers = nango_get_le(p + NANGO_RECORD_HEADERS, 4);

    sum = (uint64_t) NANGO_RECORD_HEAD + environment + type_name + integration
          + connection_id + headers;

    if (headers > NANGO_RECORD_HEADERS_MAX || sum > data.len) {
        return -1;
    }

    body = data.len - sum;

    rec->body_file = (p[5] & NANGO_RECORD_FILE) ? 1 : 0;
    rec->body_len = nango_get_le(p + NANGO_RECORD_BODY_LEN, 8);

    if (rec->body_file ? body != NANGO_BODY_NAME_LEN
                       : (body != rec->body_len
                          || body > NANGO_RECORD_BODY_MAX))
    {
        memset(rec, 0, sizeof(nango_record_t));
        return -1;
    }

    rec->source = p[1];
    rec->type = p[2];
    rec->operation = p[3];
    rec->success = p[4];
    rec->received_at = nango_get_le(p + NANGO_RECORD_RECEIVED_AT, 8);
    memcpy(rec->hmac, p + NANGO_RECORD_HMAC, NANGO_HMAC_LEN);

    p += NANGO_RECORD_HEAD;

    rec->environment = nango_record_get(&p, environment);
    rec->type_name = nango_record_get(&p, type_name);
    rec->integration = nango_record_get(&p, integration);
    rec->connection_id = nango_record_get(&p, connection_id);
    rec->headers = nango_record_get(&p, headers);
    rec->body = nango_str(p, body);

    return 0;
}
