/*
 * Copyright (C) nginx-nango authors
 *
 * From a webhook's bytes to its meaning.  This runs for every webhook twice,
 * before it is logged and when it is folded, so it is one scan of the body,
 * one allocation for all that is kept, and nothing where there is nothing to
 * keep.
 *
 * Promises: no body is an error.  Each member is judged by itself: one that
 * cannot be understood is absent, and the others stand.
 */


#include "nango_event.h"
#include "nango_json.h"

#include <stdlib.h>


#define NANGO_TYPE_NAME_MAX  64

/* The shortest member that can be a tag, {"a":"b"}, takes so many bytes. */
#define NANGO_TAG_BYTES_MIN  8

/* Of the API's "end_user", besides its own tags. */
#define NANGO_API_USER_FIELDS  5


typedef enum {
    NANGO_MEMBER_TYPE = 0,
    NANGO_MEMBER_OPERATION,
    NANGO_MEMBER_SUCCESS,
    NANGO_MEMBER_INTEGRATION,
    NANGO_MEMBER_CONNECTION,
    NANGO_MEMBER_HEAD,
    NANGO_MEMBER_PROVIDER = NANGO_MEMBER_HEAD,
    NANGO_MEMBER_TAGS,
    NANGO_MEMBER_END_USER,
    NANGO_MEMBER_ERROR,
    NANGO_MEMBER_ALL
} nango_member_e;


static int nango_event_read(nango_event_t *ev, nango_str_t body,
    nango_member_e last);
static nango_str_t nango_event_id(unsigned char **pos, nango_str_t raw);
static nango_str_t nango_event_text(unsigned char **pos, nango_str_t raw,
    size_t max);
static void nango_event_type(nango_event_t *ev, unsigned char **pos,
    nango_str_t raw);
static nango_op_e nango_event_op(nango_str_t raw);
static void nango_event_end_user(nango_event_t *ev, unsigned char **pos,
    nango_str_t raw);
static void nango_event_api_user(nango_event_t *ev, unsigned char **pos,
    nango_str_t raw);
static json_t *nango_event_string(nango_str_t s);
static void nango_event_tags(nango_event_t *ev, unsigned char **pos,
    nango_str_t raw);
static void nango_event_tag(nango_event_t *ev, unsigned char **pos,
    nango_str_t name, nango_str_t raw);


static const char  *nango_type_names[] = {
    "other", "auth", "sync", "async_action", "forward"
};

static const char  *nango_op_names[] = {
    "", "creation", "override", "refresh", "deletion", "other"
};


int
nango_event_parse_head(nango_event_t *ev, nango_str_t body)
{
    return nango_event_read(ev, body, NANGO_MEMBER_HEAD);
}


int
nango_event_parse(nango_event_t *ev, nango_str_t body)
{
    return nango_event_read(ev, body, NANGO_MEMBER_ALL);
}


void
nango_event_free(nango_event_t *ev)
{
    free(ev->memory);
    memset(ev, 0, sizeof(nango_event_t));
}


/* How much of the arena a raw string can fill at most. */

static inline size_t
nango_event_room(nango_str_t raw, size_t max)
{
    if (raw.len < 2 || raw.data[0] != '"') {
        return 0;
    }

    return (raw.len - 2 < max) ? raw.len - 2 : max;
}


/*
 * Tags are looked at in one piece of bounded size, since telling duplicates
 * apart is quadratic up to NANGO_EVENT_TAGS_MAX.
 */

static inline size_t
nango_event_tags_room(nango_str_t raw)
{
    if (raw.len < 2 || raw.len > NANGO_JSON_MAX_VALUE || raw.data[0] != '{') {
        return 0;
    }

    return raw.len;
}


static int
nango_event_read(nango_event_t *ev, nango_str_t body, nango_member_e last)
{
    size_t                size, tags, bytes;
    unsigned char        *pos;
    nango_json_member_t  *m;
    nango_json_member_t   error[] = {
        { nango_string("type"), nango_null_str },
        { nango_string("description"), nango_null_str }
    };
    nango_json_member_t   members[] = {
        { nango_string("type"), nango_null_str },
        { nango_string("operation"), nango_null_str },
        { nango_string("success"), nango_null_str },
        { nango_string("providerConfigKey"), nango_null_str },
        { nango_string("connectionId"), nango_null_str },
        { nango_string("provider"), nango_null_str },
        { nango_string("tags"), nango_null_str },
        { nango_string("endUser"), nango_null_str },
        { nango_string("error"), nango_null_str }
    };

    memset(ev, 0, sizeof(nango_event_t));
    m = members;

    if (nango_json_members(body, m, last) != NANGO_JSON_OBJECT) {
        return 0;
    }

    ev->operation = nango_event_op(m[NANGO_MEMBER_OPERATION].value);

    if (nango_json_is(m[NANGO_MEMBER_SUCCESS].value, "true")) {
        ev->success = NANGO_SUCCESS_TRUE;

    } else if (nango_json_is(m[NANGO_MEMBER_SUCCESS].value, "false")) {
        ev->success = NANGO_SUCCESS_FALSE;
    }

    if (ev->success != NANGO_SUCCESS_TRUE) {
        (void) nango_json_members(m[NANGO_MEMBER_ERROR].value, error, 2);
    }

    bytes = nango_event_tags_room(m[NANGO_MEMBER_TAGS].value)
            + nango_event_tags_room(m[NANGO_MEMBER_END_USER].value);

    tags = bytes / NANGO_TAG_BYTES_MIN;

    if (tags > NANGO_EVENT_TAGS_MAX) {
        tags = NANGO_EVENT_TAGS_MAX;
    }

    size = tags * sizeof(nango_tag_t) + bytes
           + nango_event_room(m[NANGO_MEMBER_TYPE].value, NANGO_TYPE_NAME_MAX)
           + nango_event_room(m[NANGO_MEMBER_INTEGRATION].value, NANGO_ID_MAX)
           + nango_event_room(m[NANGO_MEMBER_CONNECTION].value, NANGO_ID_MAX)
           + nango_event_room(m[NANGO_MEMBER_PROVIDER].value, NANGO_ID_MAX)
           + nango_event_room(error[0].value, NANGO_ERROR_TYPE_MAX)
           + nango_event_room(error[1].value, NANGO_ERROR_TEXT_MAX);

    if (size == 0) {
        return 0;
    }

    ev->memory = malloc(size);

    if (ev->memory == NULL) {
        memset(ev, 0, sizeof(nango_event_t));
        return -1;
    }

    ev->tags = ev->memory;
    pos = (unsigned char *) ev->memory + tags * sizeof(nango_tag_t);

    nango_event_type(ev, &pos, m[NANGO_MEMBER_TYPE].value);
    ev->integration = nango_event_id(&pos, m[NANGO_MEMBER_INTEGRATION].value);
    ev->connection_id = nango_event_id(&pos, m[NANGO_MEMBER_CONNECTION].value);
    ev->provider = nango_event_id(&pos, m[NANGO_MEMBER_PROVIDER].value);
    ev->error_type = nango_event_text(&pos, error[0].value,
                                      NANGO_ERROR_TYPE_MAX);
    ev->error_text = nango_event_text(&pos, error[1].value,
                                      NANGO_ERROR_TEXT_MAX);

    nango_event_tags(ev, &pos, m[NANGO_MEMBER_TAGS].value);

    if (ev->ntags == 0) {
        nango_event_end_user(ev, &pos, m[NANGO_MEMBER_END_USER].value);
    }

    if (ev->ntags == 0) {
        ev->tags = NULL;
    }

    return 0;
}


static nango_str_t
nango_event_id(unsigned char **pos, nango_str_t raw)
{
    nango_str_t  s;

    if (nango_json_string(raw, *pos, nango_event_room(raw, NANGO_ID_MAX), &s)
        != NANGO_JSON_STRING_OK
        || s.len == 0
        || nango_utf16_len(s) < 0)
    {
        return nango_str(NULL, 0);
    }

    *pos += s.len;

    return s;
}


static nango_str_t
nango_event_text(unsigned char **pos, nango_str_t raw, size_t max)
{
    nango_str_t  s;

    if (nango_json_string(raw, *pos, nango_event_room(raw, max), &s)
        == NANGO_JSON_STRING_BAD
        || s.len == 0)
    {
        return nango_str(NULL, 0);
    }

    *pos += s.len;

    return s;
}


static void
nango_event_type(nango_event_t *ev, unsigned char **pos, nango_str_t raw)
{
    size_t       i;
    nango_str_t  s;

    if (nango_json_string(raw, *pos,
                          nango_event_room(raw, NANGO_TYPE_NAME_MAX), &s)
        != NANGO_JSON_STRING_OK
        || s.len == 0)
    {
        return;
    }

    for (i = 0; i < s.len; i++) {
        if (s.data[i] < 0x20 || s.data[i] > 0x7e) {
            return;
        }
    }

    *pos += s.len;
    ev->type_name = s;

    for (i = NANGO_TYPE_AUTH; i <= NANGO_TYPE_FORWARD; i++) {
        if (nango_str_is(s, nango_type_names[i])) {
            ev->type = (nango_type_e) i;
            return;
        }
    }
}


static nango_op_e
nango_event_op(nango_str_t raw)
{
    size_t         i;
    nango_str_t    s;
    unsigned char  buf[16];

    if (raw.len == 0 || raw.data[0] != '"') {
        return NANGO_OP_NONE;
    }

    if (nango_json_string(raw, buf, sizeof(buf), &s) == NANGO_JSON_STRING_OK) {

        for (i = NANGO_OP_CREATION; i <= NANGO_OP_DELETION; i++) {
            if (nango_str_is(s, nango_op_names[i])) {
                return (nango_op_e) i;
            }
        }
    }

    return NANGO_OP_OTHER;
}


static void
nango_event_end_user(nango_event_t *ev, unsigned char **pos, nango_str_t raw)
{
    nango_json_member_t  members[] = {
        { nango_string("endUserId"), nango_null_str },
        { nango_string("endUserEmail"), nango_null_str },
        { nango_string("organizationId"), nango_null_str },
        { nango_string("tags"), nango_null_str }
    };

    if (nango_event_tags_room(raw) == 0) {
        return;
    }

    (void) nango_json_members(raw, members, 4);

    /*
     * The labels first, for the last one wins: on the servers that send no
     * "tags" a label never was an identity, whatever its name.
     */

    nango_event_tags(ev, pos, members[3].value);

    nango_event_tag(ev, pos, nango_str("end_user_id", 11), members[0].value);
    nango_event_tag(ev, pos, nango_str("end_user_email", 14),
                    members[1].value);
    nango_event_tag(ev, pos, nango_str("organization_id", 15),
                    members[2].value);
}


static void
nango_event_tags(nango_event_t *ev, unsigned char **pos, nango_str_t raw)
{
    size_t             i;
    nango_str_t        name, value, s;
    unsigned char      buf[NANGO_TAG_NAME_MAX];
    nango_json_walk_t  w;

    if (nango_event_tags_room(raw) == 0) {
        return;
    }

    (void) nango_json_walk(&w, raw);

    while (nango_json_next(&w, &name, &value) == 1) {

        if (nango_json_string(name, buf, sizeof(buf), &s)
            != NANGO_JSON_STRING_OK
            || nango_tag_name_error(s) != NULL)
        {
            continue;
        }

        for (i = 0; i < s.len; i++) {
            if (buf[i] >= 'A' && buf[i] <= 'Z') {
                buf[i] |= 0x20;
            }
        }

        nango_event_tag(ev, pos, s, value);
    }
}


/*
 * There is room in the arena for what is stored here: each name and value is
 * shorter than the bytes it was read from, and no two share any.
 */

static void
nango_event_tag(nango_event_t *ev, unsigned char **pos, nango_str_t name,
    nango_str_t raw)
{
    int           good;
    long          len;
    size_t        i;
    nango_str_t   value;
    nango_tag_t  *tag;

    if (raw.data == NULL) {
        return;
    }

    for (i = 0; i < ev->ntags; i++) {
        if (nango_str_eq(ev->tags[i].name, name)) {
            break;
        }
    }

    good = 0;

    if (nango_json_string(raw, *pos,
                          nango_event_room(raw, NANGO_TAG_VALUE_BYTES), &value)
        == NANGO_JSON_STRING_OK)
    {
        len = nango_utf16_len(value);
        good = (len > 0 && len <= NANGO_TAG_VALUE_MAX);
    }

    tag = &ev->tags[i];

    if (!good) {

        /* the last one wins also where it is none */

        if (i < ev->ntags) {
            ev->ntags--;
            memmove(tag, tag + 1, (ev->ntags - i) * sizeof(nango_tag_t));
        }

        return;
    }

    if (i == NANGO_EVENT_TAGS_MAX) {
        return;
    }

    *pos += value.len;
    tag->value = value;

    if (i == ev->ntags) {
        memcpy(*pos, name.data, name.len);
        tag->name = nango_str(*pos, name.len);
        *pos += name.len;
        ev->ntags++;
    }
}


int
nango_event_parse_connection(nango_event_t *ev, nango_str_t object)
{
    size_t                tags, bytes, size;
    nango_str_t           name, error;
    unsigned char        *pos;
    nango_json_walk_t     w;
    nango_json_member_t   type[] = {
        { nango_string("type"), nango_null_str }
    };
    nango_json_member_t   m[] = {
        { nango_string("provider_config_key"), nango_null_str },
        { nango_string("connection_id"), nango_null_str },
        { nango_string("provider"), nango_null_str },
        { nango_string("tags"), nango_null_str },
        { nango_string("end_user"), nango_null_str },
        { nango_string("errors"), nango_null_str }
    };

    memset(ev, 0, sizeof(nango_event_t));

    ev->type = NANGO_TYPE_AUTH;
    ev->operation = NANGO_OP_CREATION;
    ev->success = NANGO_SUCCESS_TRUE;

    if (nango_json_members(object, m, 6) != NANGO_JSON_OBJECT) {
        return 0;
    }

    if (nango_json_walk(&w, m[5].value) && !w.object) {

        while (nango_json_next(&w, &name, &error) == 1) {

            if (nango_json_members(error, type, 1) == NANGO_JSON_OBJECT
                && nango_json_is(type[0].value, "\"auth\""))
            {
                ev->success = NANGO_SUCCESS_FALSE;
                break;
            }
        }
    }

    /* The names that the fields of "end_user" get are longer than theirs. */

    bytes = nango_event_tags_room(m[3].value)
            + nango_event_tags_room(m[4].value)
            + NANGO_API_USER_FIELDS * NANGO_TAG_NAME_MAX;

    tags = bytes / NANGO_TAG_BYTES_MIN;

    if (tags > NANGO_EVENT_TAGS_MAX) {
        tags = NANGO_EVENT_TAGS_MAX;
    }

    size = tags * sizeof(nango_tag_t) + bytes
           + nango_event_room(m[0].value, NANGO_ID_MAX)
           + nango_event_room(m[1].value, NANGO_ID_MAX)
           + nango_event_room(m[2].value, NANGO_ID_MAX);

    ev->memory = malloc(size);

    if (ev->memory == NULL) {
        memset(ev, 0, sizeof(nango_event_t));
        return -1;
    }

    ev->tags = ev->memory;
    pos = (unsigned char *) ev->memory + tags * sizeof(nango_tag_t);

    ev->integration = nango_event_id(&pos, m[0].value);
    ev->connection_id = nango_event_id(&pos, m[1].value);
    ev->provider = nango_event_id(&pos, m[2].value);

    nango_event_tags(ev, &pos, m[3].value);

    if (ev->ntags == 0) {
        nango_event_api_user(ev, &pos, m[4].value);
    }

    if (ev->ntags == 0) {
        ev->tags = NULL;
    }

    return 0;
}


/* The API's "end_user" has other names than the webhooks' "endUser". */

static void
nango_event_api_user(nango_event_t *ev, unsigned char **pos, nango_str_t raw)
{
    nango_json_member_t  user[] = {
        { nango_string("id"), nango_null_str },
        { nango_string("email"), nango_null_str },
        { nango_string("display_name"), nango_null_str },
        { nango_string("tags"), nango_null_str },
        { nango_string("organization"), nango_null_str }
    };
    nango_json_member_t  organization[] = {
        { nango_string("id"), nango_null_str },
        { nango_string("display_name"), nango_null_str }
    };

    if (nango_event_tags_room(raw) == 0) {
        return;
    }

    (void) nango_json_members(raw, user, 5);
    (void) nango_json_members(user[4].value, organization, 2);

    nango_event_tags(ev, pos, user[3].value);

    nango_event_tag(ev, pos, nango_str("end_user_id", 11), user[0].value);
    nango_event_tag(ev, pos, nango_str("end_user_email", 14), user[1].value);
    nango_event_tag(ev, pos, nango_str("end_user_display_name", 21),
                    user[2].value);
    nango_event_tag(ev, pos, nango_str("organization_id", 15),
                    organization[0].value);
    nango_event_tag(ev, pos, nango_str("organization_display_name", 25),
                    organization[1].value);
}


char *
nango_event_body(const nango_event_t *ev, nango_str_t environment,
    size_t *len)
{
    int      rc;
    char    *body;
    size_t   i, size;
    json_t  *root, *tags, *error;

    /* The setters take their value over, also where they fail. */

    root = json_object();
    tags = json_object();
    rc = 0;

    for (i = 0; i < ev->ntags; i++) {
        rc |= json_object_setn_new(tags, (const char *) ev->tags[i].name.data,
                                   ev->tags[i].name.len,
                                   nango_event_string(ev->tags[i].value));
    }

    rc |= json_object_set_new(root, "connectionId",
                              nango_event_string(ev->connection_id));
    rc |= json_object_set_new(root, "environment",
                              nango_event_string(environment));

    if (ev->error_type.len != 0 || ev->error_text.len != 0) {
        error = json_object();

        rc |= json_object_set_new(error, "description",
                                  nango_event_string(ev->error_text));
        rc |= json_object_set_new(error, "type",
                                  nango_event_string(ev->error_type));
        rc |= json_object_set_new(root, "error", error);
    }

    rc |= json_object_set_new(root, "from", json_string("nango-edge"));
    rc |= json_object_set_new(root, "operation",
                              json_string(nango_op_name(ev->operation)));

    if (ev->provider.len != 0) {
        rc |= json_object_set_new(root, "provider",
                                  nango_event_string(ev->provider));
    }

    rc |= json_object_set_new(root, "providerConfigKey",
                              nango_event_string(ev->integration));

    if (ev->success != NANGO_SUCCESS_NONE) {
        rc |= json_object_set_new(root, "success",
                                  json_boolean(ev->success
                                               == NANGO_SUCCESS_TRUE));
    }

    rc |= json_object_set_new(root, "tags", tags);
    rc |= json_object_set_new(root, "type",
                              json_string(nango_type_name(ev->type)));

    body = NULL;
    size = (rc == 0) ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;

    if (size != 0) {
        body = malloc(size);
    }

    if (body != NULL && json_dumpb(root, body, size, JSON_COMPACT) != size) {
        free(body);
        body = NULL;
    }

    json_decref(root);

    *len = size;

    return body;
}


/* NULL makes jansson's setters fail. */

static json_t *
nango_event_string(nango_str_t s)
{
    if (s.len == 0) {
        return json_string("");
    }

    return json_stringn((const char *) s.data, s.len);
}


const char *
nango_type_name(nango_type_e type)
{
    if ((unsigned) type > NANGO_TYPE_FORWARD) {
        return "other";
    }

    return nango_type_names[type];
}


const char *
nango_op_name(nango_op_e op)
{
    if ((unsigned) op > NANGO_OP_OTHER) {
        return "other";
    }

    return nango_op_names[op];
}


int
nango_type_dedupes(nango_type_e type)
{
    switch (type) {

    case NANGO_TYPE_AUTH:
    case NANGO_TYPE_SYNC:
    case NANGO_TYPE_ASYNC_ACTION:
        return 1;

    default:
        return 0;
    }
}
