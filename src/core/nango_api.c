/*
 * Copyright (C) nginx-nango authors
 *
 * What goes to Nango's API is built with jansson, which escapes; what comes
 * back, and what browsers send, is read with the scanner, which takes only
 * the members that are wanted and is not put off by the others.
 *
 * Promises: bodies are compact, in a fixed order, and raw UTF-8; nothing is
 * leaked on any path, that of failing memory included.
 */


#include "nango_api.h"
#include "nango_event.h"
#include "nango_json.h"
#include "nango_utf8.h"

#include <stdlib.h>


#define NANGO_REPLY_STRING_MAX  4096
#define NANGO_INTEGRATION_MAX   255


static json_t *nango_session_tags(const nango_session_t *s,
    const char **error);
static int nango_session_end_user(const nango_session_t *s, json_t *root,
    const char **error);
static json_t *nango_session_integrations(const nango_session_t *s,
    const char **error);
static json_t *nango_session_defaults(const nango_session_t *s,
    const char **error);
static json_t *nango_session_docs(const nango_session_t *s,
    const char **error);
static json_t *nango_api_child(json_t *parent, nango_str_t name);
static const nango_tag_t *nango_session_tag(const nango_session_t *s,
    const char *name);
static const char *nango_end_user_field(nango_str_t name);
static json_t *nango_api_string(nango_str_t s, const char **error);
static int nango_api_tag(json_t *object, const nango_tag_t *tag,
    const char **error);
static char *nango_api_dump(json_t *root, size_t *len);
static char *nango_api_link(nango_str_t link, nango_str_t api_url,
    size_t *len);
static size_t nango_api_query(nango_str_t link, size_t end, int *found);
static char *nango_api_escape(char *dst, nango_str_t s);
static void nango_api_text(char *dst, size_t size, nango_str_t raw);
static const char *nango_wish_list(nango_str_t raw, size_t *n, size_t *bytes);
static const char *nango_wish_add(nango_session_wish_t *wish,
    unsigned char **pos, nango_str_t raw);


char *
nango_session_body(const nango_session_t *s, size_t *len, const char **error)
{
    char    *body;
    json_t  *root;

    *error = NULL;
    body = NULL;

    root = json_object();

    if (root == NULL) {
        return NULL;
    }

    if (s->connection_id.data != NULL) {

        if (json_object_set_new(root, "connection_id",
                                nango_api_string(s->connection_id, error))
            != 0
            || json_object_set_new(root, "integration_id",
                                   nango_api_string(s->integration_id, error))
               != 0)
        {
            goto done;
        }
    }

    if (s->format != NANGO_SESSION_END_USER
        && json_object_set_new(root, "tags", nango_session_tags(s, error))
           != 0)
    {
        goto done;
    }

    if (s->format != NANGO_SESSION_TAGS
        && nango_session_end_user(s, root, error) != 0)
    {
        goto done;
    }

    /*
     * A reconnect is for its own integration, and Nango's server refuses a
     * body of .../reconnect that says so in this member too.
     */

    if (s->nintegrations != 0
        && s->connection_id.data == NULL
        && json_object_set_new(root, "allowed_integrations",
                               nango_session_integrations(s, error))
           != 0)
    {
        goto done;
    }

    if (s->ndefaults != 0
        && json_object_set_new(root, "integrations_config_defaults",
                               nango_session_defaults(s, error))
           != 0)
    {
        goto done;
    }

    if (s->ndocs != 0
        && json_object_set_new(root, "overrides",
                               nango_session_docs(s, error))
           != 0)
    {
        goto done;
    }

    if (s->webhook_url.len != 0
        && json_object_set_new(root, "webhook_url_override",
                               nango_api_string(s->webhook_url, error))
           != 0)
    {
        goto done;
    }

    body = nango_api_dump(root, len);

done:

    json_decref(root);

    return body;
}


static json_t *
nango_session_tags(const nango_session_t *s, const char **error)
{
    size_t   i;
    json_t  *tags;

    tags = json_object();

    for (i = 0; tags != NULL && i < s->ntags; i++) {
        if (nango_api_tag(tags, &s->tags[i], error) != 0) {
            json_decref(tags);
            return NULL;
        }
    }

    return tags;
}


static int
nango_session_end_user(const nango_session_t *s, json_t *root,
    const char **error)
{
    size_t              i;
    json_t             *user, *tags, *organization;
    const char         *field;
    const nango_tag_t  *id, *name;

    if (nango_session_tag(s, "end_user_id") == NULL) {

        if (s->format == NANGO_SESSION_BOTH) {
            return 0;
        }

        *error = "the format \"end_user\" needs the tag \"end_user_id\"";
        return -1;
    }

    user = json_object();

    if (json_object_set_new(root, "end_user", user) != 0) {
        return -1;
    }

    tags = NULL;

    for (i = 0; i < s->ntags; i++) {

        if (nango_str_is(s->tags[i].name, "organization_id")
            || nango_str_is(s->tags[i].name, "organization_display_name"))
        {
            continue;
        }

        field = nango_end_user_field(s->tags[i].name);

        if (field != NULL) {
            if (json_object_set_new(user, field,
                                    nango_api_string(s->tags[i].value, error))
                != 0)
            {
                return -1;
            }

            continue;
        }

        if (tags == NULL) {
            tags = json_object();

            if (json_object_set_new(user, "tags", tags) != 0) {
                return -1;
            }
        }

        if (nango_api_tag(tags, &s->tags[i], error) != 0) {
            return -1;
        }
    }

    id = nango_session_tag(s, "organization_id");

    if (id == NULL) {
        return 0;
    }

    organization = json_object();

    if (json_object_set_new(root, "organization", organization) != 0
        || json_object_set_new(organization, "id",
                               nango_api_string(id->value, error))
           != 0)
    {
        return -1;
    }

    name = nango_session_tag(s, "organization_display_name");

    if (name == NULL) {
        return 0;
    }

    return json_object_set_new(organization, "display_name",
                               nango_api_string(name->value, error));
}


static json_t *
nango_session_integrations(const nango_session_t *s, const char **error)
{
    size_t   i;
    json_t  *list;

    list = json_array();

    for (i = 0; list != NULL && i < s->nintegrations; i++) {
        if (json_array_append_new(list,
                                  nango_api_string(s->integrations[i], error))
            != 0)
        {
            json_decref(list);
            return NULL;
        }
    }

    return list;
}


static json_t *
nango_session_defaults(const nango_session_t *s, const char **error)
{
    size_t                          i;
    json_t                         *all, *object, *value;
    nango_str_t                     name;
    const nango_session_default_t  *d;

    all = json_object();

    for (i = 0; all != NULL && i < s->ndefaults; i++) {
        d = &s->defaults[i];

        object = nango_api_child(all, d->integration);
        name = d->key;

        if (object != NULL && d->name.len != 0) {
            object = nango_api_child(object, d->key);
            name = d->name;
        }

        value = nango_api_string(d->value, error);

        /* It takes the value over, or fails with a NULL of either. */

        if (json_object_setn_new(object, (const char *) name.data, name.len,
                                 value)
            != 0)
        {
            json_decref(all);
            return NULL;
        }
    }

    return all;
}


static json_t *
nango_session_docs(const nango_session_t *s, const char **error)
{
    size_t   i;
    json_t  *all;

    all = json_object();

    for (i = 0; all != NULL && i < s->ndocs; i++) {
        if (json_object_set_new(nango_api_child(all, s->docs[i].integration),
                                "docs_connect",
                                nango_api_string(s->docs[i].url, error))
            != 0)
        {
            json_decref(all);
            return NULL;
        }
    }

    return all;
}


/* The member of that name, made if there is none; NULL: no memory. */

static json_t *
nango_api_child(json_t *parent, nango_str_t name)
{
    json_t  *child;

    child = json_object_getn(parent, (const char *) name.data, name.len);

    if (child != NULL) {
        return child;
    }

    child = json_object();

    if (json_object_setn_new(parent, (const char *) name.data, name.len, child)
        != 0)
    {
        return NULL;
    }

    return child;
}


static const nango_tag_t *
nango_session_tag(const nango_session_t *s, const char *name)
{
    size_t  i;

    for (i = 0; i < s->ntags; i++) {
        if (nango_str_is(s->tags[i].name, name)) {
            return &s->tags[i];
        }
    }

    return NULL;
}


static const char *
nango_end_user_field(nango_str_t name)
{
    if (nango_str_is(name, "end_user_id")) {
        return "id";
    }

    if (nango_str_is(name, "end_user_email")) {
        return "email";
    }

    if (nango_str_is(name, "end_user_display_name")) {
        return "display_name";
    }

    return NULL;
}


/*
 * NULL as a value makes jansson's setters fail, so what is returned here goes
 * straight into them.
 */

static json_t *
nango_api_string(nango_str_t s, const char **error)
{
    if (!nango_utf8_valid(s)) {
        *error = "a value or an id is not UTF-8";
        return NULL;
    }

    if (s.len == 0) {
        return json_stringn_nocheck("", 0);
    }

    return json_stringn_nocheck((const char *) s.data, s.len);
}


static int
nango_api_tag(json_t *object, const nango_tag_t *tag, const char **error)
{
    char  name[NANGO_TAG_NAME_MAX + 1];

    /* jansson before 2.14 takes names only as C strings */

    if (nango_tag_name_error(tag->name) != NULL) {
        *error = "the name of a tag is not one that Nango takes";
        return -1;
    }

    memcpy(name, tag->name.data, tag->name.len);
    name[tag->name.len] = '\0';

    return json_object_set_new(object, name,
                               nango_api_string(tag->value, error));
}


/*
 * Twice over, and not json_dumps(): where that has no memory while it writes a
 * name (jansson 2.14), the name is missing from what it returns.
 */

static char *
nango_api_dump(json_t *root, size_t *len)
{
    char    *body;
    size_t   size;

    size = json_dumpb(root, NULL, 0, JSON_COMPACT);

    if (size == 0) {
        return NULL;
    }

    body = malloc(size);

    if (body == NULL) {
        return NULL;
    }

    if (json_dumpb(root, body, size, JSON_COMPACT) != size) {
        free(body);
        return NULL;
    }

    *len = size;

    return body;
}


int
nango_session_reply_parse(nango_session_reply_t *reply, nango_str_t body)
{
    size_t               i, size;
    nango_str_t          strings[3];
    unsigned char       *pos;
    nango_json_member_t  data[] = {
        { nango_string("data"), nango_null_str }
    };
    nango_json_member_t  members[] = {
        { nango_string("token"), nango_null_str },
        { nango_string("connect_link"), nango_null_str },
        { nango_string("expires_at"), nango_null_str }
    };

    memset(reply, 0, sizeof(nango_session_reply_t));

    if (nango_json_members(body, data, 1) != NANGO_JSON_OBJECT
        || nango_json_members(data[0].value, members, 3) != NANGO_JSON_OBJECT)
    {
        return -1;
    }

    size = 0;

    for (i = 0; i < 3; i++) {

        /* six bytes for one is what escapes can do at most */

        if (members[i].value.len < 2
            || members[i].value.len > NANGO_REPLY_STRING_MAX * 6 + 2)
        {
            return -1;
        }

        size += members[i].value.len;
    }

    reply->memory = malloc(size);

    if (reply->memory == NULL) {
        return -2;
    }

    pos = reply->memory;

    for (i = 0; i < 3; i++) {
        if (nango_json_string(members[i].value, pos, NANGO_REPLY_STRING_MAX,
                              &strings[i])
            != NANGO_JSON_STRING_OK
            || strings[i].len == 0
            || nango_utf16_len(strings[i]) < 0)
        {
            goto failed;
        }

        pos += strings[i].len;
    }

    for (i = 0; i < strings[0].len; i++) {
        if ((strings[0].data[i] < '0' || strings[0].data[i] > '9')
            && ((strings[0].data[i] | 0x20) < 'a'
                || (strings[0].data[i] | 0x20) > 'z')
            && strings[0].data[i] != '_'
            && strings[0].data[i] != '-')
        {
            goto failed;
        }
    }

    reply->token = strings[0];
    reply->connect_link = strings[1];
    reply->expires_at = strings[2];

    return 0;

failed:

    nango_session_reply_free(reply);

    return -1;
}


void
nango_session_reply_free(nango_session_reply_t *reply)
{
    free(reply->memory);
    memset(reply, 0, sizeof(nango_session_reply_t));
}


char *
nango_session_answer(const nango_session_reply_t *reply, nango_str_t api_url,
    nango_str_t connect_url, int link_api, size_t *len)
{
    char         *link, *body;
    json_t       *root;
    const char   *error;
    nango_str_t   connect_link;

    link = NULL;
    body = NULL;
    connect_link = reply->connect_link;

    root = json_object();

    if (root == NULL) {
        return NULL;
    }

    if (link_api) {
        link = nango_api_link(connect_link, api_url, &connect_link.len);

        if (link == NULL) {
            goto done;
        }

        connect_link.data = (unsigned char *) link;
    }

    if (json_object_set_new(root, "sessionToken",
                            nango_api_string(reply->token, &error))
        != 0
        || json_object_set_new(root, "connectLink",
                               nango_api_string(connect_link, &error))
           != 0
        || json_object_set_new(root, "expiresAt",
                               nango_api_string(reply->expires_at, &error))
           != 0
        || json_object_set_new(root, "apiURL",
                               nango_api_string(api_url, &error))
           != 0
        || json_object_set_new(root, "connectURL",
                               nango_api_string(connect_url, &error))
           != 0)
    {
        goto done;
    }

    body = nango_api_dump(root, len);

done:

    json_decref(root);
    free(link);

    return body;
}


static char *
nango_api_link(nango_str_t link, nango_str_t api_url, size_t *len)
{
    int      found;
    char    *buf, *p;
    size_t   end, query;

    buf = malloc(link.len + sizeof("&apiURL=") + api_url.len * 3);

    if (buf == NULL) {
        return NULL;
    }

    for (end = 0; end < link.len && link.data[end] != '#'; end++) {
        /* void */
    }

    query = nango_api_query(link, end, &found);
    p = buf;

    memcpy(p, link.data, end);
    p += end;

    if (!found) {

        if (query == end) {
            *p++ = '?';

        } else if (query + 1 != end && p[-1] != '&') {
            *p++ = '&';
        }

        memcpy(p, "apiURL=", 7);
        p += 7;

        p = nango_api_escape(p, api_url);
    }

    memcpy(p, link.data + end, link.len - end);
    p += link.len - end;

    *len = p - buf;

    return buf;
}


/* dst takes three bytes for each; returns where it ends. */

static char *
nango_api_escape(char *dst, nango_str_t s)
{
    size_t         i;
    unsigned char  c;

    static const char  hex[] = "0123456789ABCDEF";

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if ((c >= '0' && c <= '9')
            || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
            || c == '-' || c == '.' || c == '_' || c == '~')
        {
            *dst++ = (char) c;
            continue;
        }

        *dst++ = '%';
        *dst++ = hex[c >> 4];
        *dst++ = hex[c & 0xf];
    }

    return dst;
}


/*
 * Where the question mark of the link stands, which ends at end; end if there
 * is none.  found: the query has an apiURL already.
 */

static size_t
nango_api_query(nango_str_t link, size_t end, int *found)
{
    size_t       i, query;
    nango_str_t  name;

    *found = 0;

    for (query = 0; query < end && link.data[query] != '?'; query++) {
        /* void */
    }

    i = query;

    while (i < end) {
        name.data = link.data + i + 1;

        for (i++; i < end && link.data[i] != '&' && link.data[i] != '='; i++) {
            /* void */
        }

        name.len = link.data + i - name.data;

        if (nango_str_is(name, "apiURL")) {
            *found = 1;
            break;
        }

        while (i < end && link.data[i] != '&') {
            i++;
        }
    }

    return query;
}


void
nango_api_error_parse(nango_api_error_t *e, nango_str_t body)
{
    nango_str_t          name, first;
    nango_json_walk_t    w;
    nango_json_member_t  error[] = {
        { nango_string("error"), nango_null_str }
    };
    nango_json_member_t  members[] = {
        { nango_string("code"), nango_null_str },
        { nango_string("message"), nango_null_str },
        { nango_string("errors"), nango_null_str }
    };
    nango_json_member_t  message[] = {
        { nango_string("message"), nango_null_str }
    };

    e->code[0] = '\0';
    e->message[0] = '\0';

    if (nango_json_members(body, error, 1) != NANGO_JSON_OBJECT
        || nango_json_members(error[0].value, members, 3) != NANGO_JSON_OBJECT)
    {
        return;
    }

    nango_api_text(e->code, sizeof(e->code), members[0].value);
    nango_api_text(e->message, sizeof(e->message), members[1].value);

    if (nango_json_walk(&w, members[2].value)
        && !w.object
        && nango_json_next(&w, &name, &first) == 1
        && nango_json_members(first, message, 1) == NANGO_JSON_OBJECT
        && message[0].value.data != NULL)
    {
        nango_api_text(e->message, sizeof(e->message), message[0].value);
    }
}


int
nango_api_success(nango_str_t body)
{
    nango_json_member_t  success[] = {
        { nango_string("success"), nango_null_str }
    };

    return nango_json_members(body, success, 1) == NANGO_JSON_OBJECT
           && nango_json_is(success[0].value, "true");
}


static void
nango_api_text(char *dst, size_t size, nango_str_t raw)
{
    size_t       i;
    nango_str_t  s;

    (void) nango_json_string(raw, (unsigned char *) dst, size - 1, &s);

    for (i = 0; i < s.len; i++) {
        if ((unsigned char) dst[i] < 0x20 || dst[i] == 0x7f) {
            dst[i] = ' ';
        }
    }

    dst[s.len] = '\0';
}


int
nango_session_wish_parse(nango_session_wish_t *wish, nango_str_t body,
    const char **error)
{
    size_t               i, n, bytes, given;
    nango_str_t          name, raw, single;
    unsigned char       *pos;
    nango_json_walk_t    w;
    nango_json_member_t  members[] = {
        { nango_string("integration"), nango_null_str },
        { nango_string("integration_id"), nango_null_str },
        { nango_string("provider_config_key"), nango_null_str },
        { nango_string("integrations"), nango_null_str }
    };

    memset(wish, 0, sizeof(nango_session_wish_t));
    *error = NULL;

    for (i = 0; i < body.len; i++) {
        if (body.data[i] != ' ' && body.data[i] != '\t'
            && body.data[i] != '\r' && body.data[i] != '\n')
        {
            break;
        }
    }

    if (i == body.len) {
        return 0;
    }

    if (nango_json_members(body, members, 4) != NANGO_JSON_OBJECT) {
        *error = "the body is not a JSON object";
        return -1;
    }

    if (nango_json_extra(body, members, 4, NULL) != 0) {
        *error = "the body has a field that is not known";
        return -1;
    }

    given = 0;
    single = nango_str(NULL, 0);

    for (i = 0; i < 4; i++) {
        if (members[i].value.data == NULL) {
            continue;
        }

        given++;

        if (i < 3) {
            single = members[i].value;
        }
    }

    if (given == 0) {
        return 0;
    }

    if (given > 1) {
        *error = "the body names integrations in more than one way";
        return -1;
    }

    n = 1;
    bytes = single.len;

    if (single.data == NULL) {
        *error = nango_wish_list(members[3].value, &n, &bytes);

        if (*error != NULL) {
            return -1;
        }
    }

    wish->memory = malloc(n * sizeof(nango_str_t) + bytes);

    if (wish->memory == NULL) {
        return -2;
    }

    wish->integrations = wish->memory;
    pos = (unsigned char *) (wish->integrations + n);

    if (single.data != NULL) {
        *error = nango_wish_add(wish, &pos, single);

    } else if (nango_json_walk(&w, members[3].value)) {

        while (nango_json_next(&w, &name, &raw) == 1 && *error == NULL) {
            *error = nango_wish_add(wish, &pos, raw);
        }
    }

    if (*error != NULL) {
        nango_session_wish_free(wish);
        return -1;
    }

    return 0;
}


void
nango_session_wish_free(nango_session_wish_t *wish)
{
    free(wish->memory);
    memset(wish, 0, sizeof(nango_session_wish_t));
}


static const char *
nango_wish_list(nango_str_t raw, size_t *n, size_t *bytes)
{
    nango_str_t        name, value;
    nango_json_walk_t  w;

    if (!nango_json_walk(&w, raw) || w.object) {
        return "\"integrations\" must be an array of strings";
    }

    *n = 0;
    *bytes = raw.len;

    while (nango_json_next(&w, &name, &value) == 1) {
        (*n)++;
    }

    /* not to be taken for a body that asks for nothing in particular */

    if (*n == 0) {
        return "\"integrations\" must not be empty";
    }

    return NULL;
}


static const char *
nango_wish_add(nango_session_wish_t *wish, unsigned char **pos,
    nango_str_t raw)
{
    size_t               size;
    nango_str_t          id;
    nango_json_string_e  rc;

    if (raw.data[0] != '"') {
        return "an integration must be a string";
    }

    size = raw.len - 2;

    if (size > NANGO_INTEGRATION_MAX) {
        size = NANGO_INTEGRATION_MAX;
    }

    rc = nango_json_string(raw, *pos, size, &id);

    if (rc != NANGO_JSON_STRING_OK || !nango_integration_valid(id)) {
        return "an integration's id is not valid";
    }

    wish->integrations[wish->nintegrations++] = id;
    *pos += id.len;

    return NULL;
}


int
nango_target_parse(nango_target_t *target, nango_str_t body, unsigned accept,
    unsigned char *buf, const char **error)
{
    size_t               i, given;
    unsigned             id;
    nango_str_t          s;
    nango_json_member_t  members[] = {
        { nango_string("integration"), nango_null_str },
        { nango_string("integration_id"), nango_null_str },
        { nango_string("provider_config_key"), nango_null_str },
        { nango_string("id"), nango_null_str },
        { nango_string("connection_id"), nango_null_str }
    };

    memset(target, 0, sizeof(nango_target_t));

    if (nango_json_members(body, members, 5) != NANGO_JSON_OBJECT) {
        *error = "the body is not a JSON object";
        return -1;
    }

    if (nango_json_extra(body, members, 5, NULL) != 0) {
        *error = "the body has a field that is not known";
        return -1;
    }

    given = 0;

    for (i = 0; i < 3; i++) {

        if (members[i].value.data == NULL) {
            continue;
        }

        if (given++ != 0) {
            *error = "the body names its integration in more than one way";
            return -1;
        }

        if (nango_json_string(members[i].value, buf, NANGO_INTEGRATION_MAX,
                              &target->integration)
            != NANGO_JSON_STRING_OK
            || !nango_integration_valid(target->integration))
        {
            *error = "an integration's id is not valid";
            return -1;
        }

        buf += target->integration.len;
    }

    id = (members[3].value.data != NULL);

    if (id) {
        if (nango_json_string(members[3].value, buf, NANGO_ID_MAX, &s)
            != NANGO_JSON_STRING_OK)
        {
            *error = "\"id\" must be a string";
            return -1;
        }

        if (nango_unhex(target->id, NANGO_KEY_LEN, s) != 0) {
            memset(target->id, 0, NANGO_KEY_LEN);
        }
    }

    if (members[4].value.data != NULL) {
        if (nango_json_string(members[4].value, buf, NANGO_ID_MAX,
                              &target->connection_id)
            != NANGO_JSON_STRING_OK
            || !nango_connection_id_valid(target->connection_id))
        {
            *error = "\"connection_id\" is not valid";
            return -1;
        }
    }

    if (id && given == 0 && target->connection_id.data == NULL) {
        target->by = NANGO_TARGET_ID;

    } else if (!id && given != 0 && target->connection_id.data == NULL) {
        target->by = NANGO_TARGET_INTEGRATION;

    } else if (!id && given != 0) {
        target->by = NANGO_TARGET_CONNECTION;
    }

    if ((target->by & accept) == 0) {
        *error = (accept & NANGO_TARGET_CONNECTION)
                 ? "the body must have \"id\", or \"integration\" and "
                   "\"connection_id\""
                 : "the body must have either \"integration\" or \"id\"";
        return -1;
    }

    return 0;
}


char *
nango_connection_path(nango_str_t connection_id, nango_str_t integration)
{
    char  *path, *p;

    static const char  start[] = "/connections/";
    static const char  query[] = "?provider_config_key=";

    path = malloc(sizeof(start) + sizeof(query)
                  + (connection_id.len + integration.len) * 3);

    if (path == NULL) {
        return NULL;
    }

    memcpy(path, start, sizeof(start) - 1);
    p = nango_api_escape(path + sizeof(start) - 1, connection_id);

    memcpy(p, query, sizeof(query) - 1);
    p = nango_api_escape(p + sizeof(query) - 1, integration);

    *p = '\0';

    return path;
}


int
nango_connection_id_usable(nango_str_t connection_id)
{
    return connection_id.len != 0
           && !nango_str_is(connection_id, ".")
           && !nango_str_is(connection_id, "..");
}
