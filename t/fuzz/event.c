/*
 * Copyright (C) nginx-nango authors
 *
 * A webhook's body.  Whatever it is, the event keeps its promises; and where
 * jansson can read it too, the event is what a plain reading with jansson
 * says.
 */


#include "fuzz.h"

#include "nango_event.h"
#include "nango_json.h"
#include "nango_utf8.h"


#define TAGS_ALL  1024


/* What the event is expected to have, its names in buffers of their own. */

typedef struct {
    char                  name[NANGO_TAG_NAME_MAX];
    size_t                len;
    nango_str_t           value;
} expected_tag_t;

typedef struct {
    expected_tag_t        tags[TAGS_ALL];
    size_t                n;
} expected_t;


static nango_str_t
plain(json_t *object, const char *name)
{
    json_t  *value;

    value = json_object_get(object, name);

    if (!json_is_string(value)) {
        return nango_str(NULL, 0);
    }

    return nango_str(json_string_value(value), json_string_length(value));
}


static void
check_id(nango_str_t id, json_t *json, const char *name)
{
    nango_str_t  s;

    s = plain(json, name);

    if (s.len == 0 || s.len > NANGO_ID_MAX || nango_utf16_len(s) < 0) {
        check(id.data == NULL);
        return;
    }

    check(id.data != NULL && nango_str_eq(id, s));
}


static void
expect_tag(expected_t *e, nango_str_t name, json_t *json)
{
    size_t           i;
    nango_str_t      value;
    expected_tag_t  *tag;

    value = nango_str(json_string_value(json), json_string_length(json));

    for (i = 0; i < e->n; i++) {
        tag = &e->tags[i];

        if (nango_str_eq(nango_str(tag->name, tag->len), name)) {
            break;
        }
    }

    tag = &e->tags[i];

    if (!json_is_string(json) || nango_utf16_len(value) < 1
        || nango_utf16_len(value) > NANGO_TAG_VALUE_MAX)
    {
        if (i < e->n) {
            memmove(tag, tag + 1, (--e->n - i) * sizeof(expected_tag_t));
        }

        return;
    }

    if (i == NANGO_EVENT_TAGS_MAX) {
        return;
    }

    if (i == e->n) {
        memcpy(tag->name, name.data, name.len);
        tag->len = name.len;
        e->n++;
    }

    tag->value = value;
}


static void
expect_tags(expected_t *e, json_t *json)
{
    char         lower[NANGO_TAG_NAME_MAX];
    size_t       i;
    void        *iter;
    nango_str_t  name;

    if (!json_is_object(json)) {
        return;
    }

    for (iter = json_object_iter(json); iter;
         iter = json_object_iter_next(json, iter))
    {
        name = nango_str(json_object_iter_key(iter),
                         json_object_iter_key_len(iter));

        if (nango_tag_name_error(name) != NULL) {
            continue;
        }

        for (i = 0; i < name.len; i++) {
            lower[i] = (name.data[i] >= 'A' && name.data[i] <= 'Z')
                       ? name.data[i] + 32 : name.data[i];
        }

        expect_tag(e, nango_str(lower, name.len),
                   json_object_iter_value(iter));
    }
}


static void
check_tags(const nango_event_t *ev, json_t *json)
{
    size_t             i;
    json_t            *user;
    static expected_t  e;

    e.n = 0;
    expect_tags(&e, json_object_get(json, "tags"));

    user = json_object_get(json, "endUser");

    if (e.n == 0 && json_is_object(user)) {
        expect_tags(&e, json_object_get(user, "tags"));

        if (json_object_get(user, "endUserId")) {
            expect_tag(&e, S("end_user_id"),
                       json_object_get(user, "endUserId"));
        }

        if (json_object_get(user, "endUserEmail")) {
            expect_tag(&e, S("end_user_email"),
                       json_object_get(user, "endUserEmail"));
        }

        if (json_object_get(user, "organizationId")) {
            expect_tag(&e, S("organization_id"),
                       json_object_get(user, "organizationId"));
        }
    }

    check(ev->ntags == e.n);

    for (i = 0; i < e.n; i++) {
        check(nango_str_eq(ev->tags[i].name,
                           nango_str(e.tags[i].name, e.tags[i].len)));
        check(nango_str_eq(ev->tags[i].value, e.tags[i].value));
    }
}


static void
check_error(nango_str_t own, json_t *json, const char *name, size_t max)
{
    nango_str_t  s;

    s = plain(json, name);

    if (s.len == 0) {
        check(own.data == NULL);
        return;
    }

    check(own.data != NULL && own.len <= max && own.len <= s.len);
    check(own.len == s.len || own.len + 4 > max);
    check(own.len == 0 || memcmp(own.data, s.data, own.len) == 0);
}


/* What is true of each event. */

static void
check_event(const nango_event_t *ev)
{
    size_t             i, j;
    const nango_tag_t *tag;

    check((unsigned) ev->type <= NANGO_TYPE_FORWARD);
    check((unsigned) ev->operation <= NANGO_OP_OTHER);
    check((unsigned) ev->success <= NANGO_SUCCESS_TRUE);

    check((ev->type_name.data == NULL) == (ev->type_name.len == 0));
    check(ev->type_name.len <= 64);
    check(ev->type == NANGO_TYPE_OTHER
          || nango_str_is(ev->type_name, nango_type_name(ev->type)));

    for (i = 0; i < ev->type_name.len; i++) {
        check(ev->type_name.data[i] >= 0x20 && ev->type_name.data[i] < 0x7f);
    }

    check(ev->integration.len <= NANGO_ID_MAX);
    check(ev->connection_id.len <= NANGO_ID_MAX);
    check(ev->provider.len <= NANGO_ID_MAX);
    check(ev->error_type.len <= NANGO_ERROR_TYPE_MAX);
    check(ev->error_text.len <= NANGO_ERROR_TEXT_MAX);
    check(nango_utf16_len(ev->integration) >= 0);
    check(nango_utf16_len(ev->connection_id) >= 0);
    check(nango_utf16_len(ev->provider) >= 0);
    check(nango_utf8_valid(ev->error_type));
    check(nango_utf8_valid(ev->error_text));

    check(ev->success != NANGO_SUCCESS_TRUE
          || (ev->error_type.data == NULL && ev->error_text.data == NULL));

    check(ev->ntags <= NANGO_EVENT_TAGS_MAX);

    for (i = 0; i < ev->ntags; i++) {
        tag = &ev->tags[i];

        check(nango_tag_name_error(tag->name) == NULL);
        check(nango_tag_value_error(S(""), tag->value) == NULL);

        for (j = 0; j < tag->name.len; j++) {
            check(tag->name.data[j] < 'A' || tag->name.data[j] > 'Z');
        }

        for (j = 0; j < i; j++) {
            check(!nango_str_eq(ev->tags[j].name, tag->name));
        }
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t         *json, *value;
    nango_str_t     body, s;
    json_error_t    error;
    nango_event_t   ev, head;

    /* The event is to live without its body. */

    body = exact(nango_str(data, size));

    check(nango_event_parse_head(&head, body) == 0);
    check(nango_event_parse(&ev, body) == 0);

    exact_free(body);

    check_event(&ev);

    check(head.type == ev.type && head.operation == ev.operation
          && head.success == ev.success);
    check(nango_str_eq(head.type_name, ev.type_name));
    check(nango_str_eq(head.integration, ev.integration));
    check(nango_str_eq(head.connection_id, ev.connection_id));
    check(head.ntags == 0 && head.provider.data == NULL
          && head.error_type.data == NULL && head.error_text.data == NULL);

    json = json_loadb((const char *) data, size,
                      JSON_DECODE_ANY|JSON_REJECT_DUPLICATES, &error);

    /* jansson goes deeper, and then it is no event. */

    if (json_is_object(json)
        && nango_json_members(nango_str(data, size), NULL, 0)
           == NANGO_JSON_OBJECT)
    {
        s = plain(json, "operation");

        if (s.data == NULL) {
            check(ev.operation == NANGO_OP_NONE);

        } else if (ev.operation == NANGO_OP_OTHER) {
            check(!nango_str_is(s, "creation") && !nango_str_is(s, "override")
                  && !nango_str_is(s, "refresh")
                  && !nango_str_is(s, "deletion"));

        } else {
            check(nango_str_is(s, nango_op_name(ev.operation)));
        }

        value = json_object_get(json, "success");

        check((ev.success == NANGO_SUCCESS_TRUE) == json_is_true(value));
        check((ev.success == NANGO_SUCCESS_FALSE) == json_is_false(value));

        s = plain(json, "type");
        check(ev.type_name.data == NULL || nango_str_eq(ev.type_name, s));
        check(ev.type != NANGO_TYPE_OTHER || !nango_str_is(s, "auth"));

        check_id(ev.integration, json, "providerConfigKey");
        check_id(ev.connection_id, json, "connectionId");
        check_id(ev.provider, json, "provider");

        value = (ev.success == NANGO_SUCCESS_TRUE)
                ? NULL : json_object_get(json, "error");

        check_error(ev.error_type, value, "type", NANGO_ERROR_TYPE_MAX);
        check_error(ev.error_text, value, "description",
                    NANGO_ERROR_TEXT_MAX);

        check_tags(&ev, json);
    }

    json_decref(json);

    nango_event_free(&head);
    nango_event_free(&ev);

    check(ev.memory == NULL && ev.ntags == 0);

    return 0;
}
