/*
 * Copyright (C) nginx-nango authors
 *
 * Packed: for each member a byte that says of which object it is, the lengths
 * of name and value as two bytes each (little endian), name and value.
 */


#include "nango_credential.h"
#include "nango_json.h"
#include "nango_tags.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <time.h>


#define NANGO_CREDENTIAL_HEAD    5
#define NANGO_CREDENTIAL_MEMBER  'c'
#define NANGO_CREDENTIAL_CONFIG  'g'


typedef struct {
    unsigned char  *pos;
    unsigned char  *end;
} nango_pack_t;


static int nango_pack_object(nango_pack_t *p, int kind, nango_str_t raw);
static int nango_pack_member(nango_pack_t *p, int kind, nango_str_t name,
    nango_str_t raw);
static int nango_pack_same(nango_str_t raw, nango_str_t s);
static nango_str_t nango_pack_find(nango_str_t packed, int kind,
    nango_str_t name);
static int nango_pack_lower(int c);
static uint64_t nango_time_parse(nango_str_t s);
static int nango_time_number(const unsigned char *p, size_t n);


/* In this order; Nango's kinds of credentials have one of them at most. */

static const char  *nango_credential_secrets[] = {
    "access_token", "accessToken", "token", "apiKey", "oauth_token",
    "session_id"
};


int
nango_credential_pack(nango_str_t reply, nango_str_t integration,
    nango_str_t connection_id, unsigned char *dst, size_t size, size_t *len,
    uint64_t *expires)
{
    nango_pack_t         p;
    nango_str_t          at;
    nango_json_member_t  m[] = {
        { nango_string("provider_config_key"), nango_null_str },
        { nango_string("connection_id"), nango_null_str },
        { nango_string("credentials"), nango_null_str },
        { nango_string("connection_config"), nango_null_str }
    };

    *len = 0;
    *expires = 0;

    if (nango_json_members(reply, m, 4) != NANGO_JSON_OBJECT
        || !nango_pack_same(m[0].value, integration)
        || !nango_pack_same(m[1].value, connection_id)
        || m[2].value.len == 0 || m[2].value.data[0] != '{')
    {
        return -1;
    }

    p.pos = dst;
    p.end = dst + size;

    if (nango_pack_object(&p, NANGO_CREDENTIAL_MEMBER, m[2].value) != 0
        || nango_pack_object(&p, NANGO_CREDENTIAL_CONFIG, m[3].value) != 0)
    {
        return -2;
    }

    *len = p.pos - dst;

    at = nango_credential_field(nango_str(dst, *len),
                                nango_str("expires_at", 10));
    if (at.data != NULL) {
        *expires = nango_time_parse(at);
    }

    return 0;
}


static int
nango_pack_object(nango_pack_t *p, int kind, nango_str_t raw)
{
    nango_str_t        name, value;
    nango_json_walk_t  w;

    if (!nango_json_walk(&w, raw) || !w.object) {
        return 0;
    }

    while (nango_json_next(&w, &name, &value) == 1) {
        if (nango_pack_member(p, kind, name, value) != 0) {
            return -1;
        }
    }

    return 0;
}


/* 0, also where it is left out; -1: no room. */

static int
nango_pack_member(nango_pack_t *p, int kind, nango_str_t name,
    nango_str_t raw)
{
    size_t          room;
    nango_str_t     n, v;
    unsigned char  *dst;

    if (raw.data[0] == '{' || raw.data[0] == '['
        || nango_json_is(raw, "null"))
    {
        return 0;
    }

    /* Decoding never makes longer. */

    if ((size_t) (p->end - p->pos) < NANGO_CREDENTIAL_HEAD + name.len
                                     + raw.len)
    {
        return -1;
    }

    dst = p->pos + NANGO_CREDENTIAL_HEAD;

    if (nango_json_string(name, dst, name.len, &n) != NANGO_JSON_STRING_OK
        || n.len == 0 || n.len > 0xffff)
    {
        return 0;
    }

    dst += n.len;
    room = raw.len;

    if (raw.data[0] == '"') {

        if (nango_json_string(raw, dst, room, &v) != NANGO_JSON_STRING_OK
            || nango_utf16_len(v) < 0)
        {
            return 0;
        }

    } else {
        memcpy(dst, raw.data, raw.len);
        v = nango_str(dst, raw.len);
    }

    if (v.len > 0xffff) {
        return 0;
    }

    p->pos[0] = (unsigned char) kind;
    p->pos[1] = (unsigned char) (n.len & 0xff);
    p->pos[2] = (unsigned char) (n.len >> 8);
    p->pos[3] = (unsigned char) (v.len & 0xff);
    p->pos[4] = (unsigned char) (v.len >> 8);

    p->pos += NANGO_CREDENTIAL_HEAD + n.len + v.len;

    return 0;
}


static int
nango_pack_same(nango_str_t raw, nango_str_t s)
{
    int             same;
    nango_str_t     value;
    unsigned char  *buf;

    if (raw.len < 2) {
        return 0;
    }

    buf = malloc(raw.len);

    if (buf == NULL) {
        return 0;
    }

    same = nango_json_string(raw, buf, raw.len, &value)
           == NANGO_JSON_STRING_OK
           && nango_str_eq(value, s);

    free(buf);

    return same;
}


nango_str_t
nango_credential_field(nango_str_t packed, nango_str_t name)
{
    return nango_pack_find(packed, NANGO_CREDENTIAL_MEMBER, name);
}


nango_str_t
nango_config_field(nango_str_t packed, nango_str_t name)
{
    return nango_pack_find(packed, NANGO_CREDENTIAL_CONFIG, name);
}


/* Of members with the same name the last one counts, as in JSON.parse(). */

static nango_str_t
nango_pack_find(nango_str_t packed, int kind, nango_str_t name)
{
    size_t                i, n, len;
    nango_str_t           found;
    const unsigned char  *p, *end;

    found = nango_str(NULL, 0);

    p = packed.data;
    end = p + packed.len;

    while (end - p >= NANGO_CREDENTIAL_HEAD) {

        n = p[1] | (size_t) p[2] << 8;
        len = p[3] | (size_t) p[4] << 8;

        if ((size_t) (end - p) < NANGO_CREDENTIAL_HEAD + n + len) {
            break;
        }

        if (p[0] == kind && n == name.len) {

            for (i = 0; i < n; i++) {
                if (nango_pack_lower(p[NANGO_CREDENTIAL_HEAD + i])
                    != nango_pack_lower(name.data[i]))
                {
                    break;
                }
            }

            if (i == n) {
                found = nango_str(p + NANGO_CREDENTIAL_HEAD + n, len);
            }
        }

        p += NANGO_CREDENTIAL_HEAD + n + len;
    }

    return found;
}


static int
nango_pack_lower(int c)
{
    return (c >= 'A' && c <= 'Z') ? (c | 0x20) : c;
}


nango_str_t
nango_credential_secret(nango_str_t packed)
{
    size_t       i;
    nango_str_t  s, name;

    for (i = 0; i < sizeof(nango_credential_secrets) / sizeof(char *); i++) {

        name = nango_str(nango_credential_secrets[i],
                         strlen(nango_credential_secrets[i]));

        s = nango_credential_field(packed, name);

        if (s.len != 0) {
            return s;
        }
    }

    s = nango_credential_field(packed, nango_str("type", 4));

    if (nango_str_is(s, "BASIC")) {
        return nango_credential_field(packed, nango_str("password", 8));
    }

    return nango_str(NULL, 0);
}


size_t
nango_credential_authorization(nango_str_t packed, unsigned char *dst)
{
    size_t          len;
    nango_str_t     type, user, password, secret;
    unsigned char  *plain;

    static const char  bearer[] = "Bearer ";
    static const char  basic[] = "Basic ";

    type = nango_credential_field(packed, nango_str("type", 4));
    user = nango_credential_field(packed, nango_str("username", 8));
    password = nango_credential_field(packed, nango_str("password", 8));

    if (nango_str_is(type, "BASIC")) {

        if (user.data == NULL) {
            return 0;
        }

        len = user.len + 1 + password.len;

        if (dst == NULL) {
            return sizeof(basic) - 1 + (len + 2) / 3 * 4;
        }

        /* libcrypto writes a zero byte behind it, for which there is none. */

        plain = malloc(len + (len + 2) / 3 * 4 + 1);

        if (plain == NULL) {
            return 0;
        }

        memcpy(plain, user.data, user.len);
        plain[user.len] = ':';

        if (password.len != 0) {
            memcpy(plain + user.len + 1, password.data, password.len);
        }

        (void) EVP_EncodeBlock(plain + len, plain, (int) len);

        memcpy(dst, basic, sizeof(basic) - 1);
        memcpy(dst + sizeof(basic) - 1, plain + len, (len + 2) / 3 * 4);

        OPENSSL_cleanse(plain, len + (len + 2) / 3 * 4);
        free(plain);

        return sizeof(basic) - 1 + (len + 2) / 3 * 4;
    }

    /* A call by OAuth 1 is signed; the token alone opens nothing. */

    if (nango_str_is(type, "OAUTH1")) {
        return 0;
    }

    secret = nango_credential_secret(packed);

    if (secret.len == 0) {
        return 0;
    }

    if (dst != NULL) {
        memcpy(dst, bearer, sizeof(bearer) - 1);
        memcpy(dst + sizeof(bearer) - 1, secret.data, secret.len);
    }

    return sizeof(bearer) - 1 + secret.len;
}


/*
 * "2026-11-23T08:27:08.159Z", or with "+00:00": what JavaScript writes.  0 for
 * anything else.
 */

static uint64_t
nango_time_parse(nango_str_t s)
{
    time_t     t;
    struct tm  tm;

    if (s.len < 20 || s.data[4] != '-' || s.data[7] != '-'
        || s.data[10] != 'T' || s.data[13] != ':' || s.data[16] != ':')
    {
        return 0;
    }

    /* An offset other than 0 is not what Nango sends. */

    if (s.data[s.len - 1] != 'Z'
        && (s.len < 25 || memcmp(s.data + s.len - 6, "+00:00", 6) != 0))
    {
        return 0;
    }

    memset(&tm, 0, sizeof(struct tm));

    tm.tm_year = nango_time_number(s.data, 4) - 1900;
    tm.tm_mon = nango_time_number(s.data + 5, 2) - 1;
    tm.tm_mday = nango_time_number(s.data + 8, 2);
    tm.tm_hour = nango_time_number(s.data + 11, 2);
    tm.tm_min = nango_time_number(s.data + 14, 2);
    tm.tm_sec = nango_time_number(s.data + 17, 2);

    if (tm.tm_year < 70 || tm.tm_mon < 0 || tm.tm_mday < 0
        || tm.tm_hour < 0 || tm.tm_min < 0 || tm.tm_sec < 0)
    {
        return 0;
    }

    t = timegm(&tm);

    return (t > 0) ? (uint64_t) t * 1000 : 0;
}


static int
nango_time_number(const unsigned char *p, size_t n)
{
    int  value;

    for (value = 0; n != 0; n--, p++) {

        if (*p < '0' || *p > '9') {
            return -1;
        }

        value = value * 10 + (*p - '0');
    }

    return value;
}
