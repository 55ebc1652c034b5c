/*
 * Copyright (C) nginx-nango authors
 *
 * The bodies of Nango's API and of ours.  The first line says which: "reply"
 * (then a line with our API's URL), "error", "wish" or "session" (then lines
 * with tags, ids and integrations).  jansson says what is in a body.
 */


#include "fuzz.h"

#include "nango_api.h"
#include "nango_json.h"
#include "nango_utf8.h"


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


static json_t *
load(nango_str_t s, size_t flags)
{
    json_error_t  error;

    return json_loadb((const char *) s.data, s.len,
                      flags|JSON_DECODE_ANY|JSON_REJECT_DUPLICATES, &error);
}


static int
token_char(unsigned char c)
{
    return c == '_' || c == '-' || (c >= '0' && c <= '9')
           || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}


/* Of a query between the first "?" and "#": is there an apiURL? */

static int
link_has_url(nango_str_t link)
{
    nango_str_t  query, pair, name;

    query = take(&link, '#');
    (void) take(&query, '?');

    while (query.len) {
        pair = take(&query, '&');
        name = take(&pair, '=');

        if (nango_str_is(name, "apiURL")) {
            return 1;
        }
    }

    return 0;
}


/* The link with apiURL, made in another way: decoded again it is the URL. */

static void
check_link(nango_str_t link, nango_str_t url, nango_str_t made)
{
    char         hex[3];
    size_t       i;
    nango_str_t  rest, start, part, end;

    rest = link;
    start = take(&rest, '#');
    end = nango_str(link.data + start.len, link.len - start.len);

    check(made.len >= link.len);
    check(nango_str_eq(nango_str(made.data, start.len), start));
    check(nango_str_eq(nango_str(made.data + made.len - end.len, end.len),
                       end));

    if (link_has_url(link)) {
        check(nango_str_eq(made, link));
        return;
    }

    check(link_has_url(made));

    part = nango_str(made.data + start.len,
                     made.len - start.len - end.len);

    if (part.data[0] == '?' || part.data[0] == '&') {
        check((part.data[0] == '?')
              == (start.len == 0
                  || memchr(start.data, '?', start.len) == NULL));
        (void) take_byte(&part);

    } else {
        check(start.len != 0 && memchr(start.data, '?', start.len) != NULL);
        check(start.data[start.len - 1] == '?'
              || start.data[start.len - 1] == '&');
    }

    start = take(&part, '=');
    check(nango_str_is(start, "apiURL"));

    for (i = 0; i < url.len; i++) {
        check(part.len != 0);

        if (part.data[0] == '%') {
            check(part.len >= 3);
            memcpy(hex, part.data + 1, 2);
            hex[2] = '\0';
            check(strspn(hex, "0123456789ABCDEF") == 2);
            check(strtoul(hex, NULL, 16) == url.data[i]);
            (void) take_bytes(&part, 3);

        } else {
            check(strchr("&#+= /?:%", part.data[0]) == NULL);
            check(part.data[0] < 0x7f && part.data[0] > 0x20);
            check(take_byte(&part) == url.data[i]);
        }
    }

    check(part.len == 0);
}


static void
check_answer(const nango_session_reply_t *reply, nango_str_t url, int link)
{
    char         *text;
    size_t        len;
    json_t       *json;
    nango_str_t   made;

    text = nango_session_answer(reply, url, S("https://connect.test"), link,
                                &len);

    check((text != NULL) == nango_utf8_valid(url));

    if (text == NULL) {
        return;
    }

    json = load(nango_str(text, len), JSON_ALLOW_NUL);

    check(json_object_size(json) == 5);
    check(nango_str_eq(plain(json, "sessionToken"), reply->token));
    check(nango_str_eq(plain(json, "expiresAt"), reply->expires_at));
    check(nango_str_is(plain(json, "connectURL"), "https://connect.test"));

    check(nango_str_eq(plain(json, "apiURL"), url));

    made = plain(json, "connectLink");

    if (link) {
        check_link(reply->connect_link, url, made);

    } else {
        check(nango_str_eq(made, reply->connect_link));
    }

    json_decref(json);
    free(text);
}


static void
reply_fuzz(nango_str_t url, nango_str_t body)
{
    int                     i, rc, good;
    size_t                  j;
    json_t                 *json, *data;
    nango_str_t             copy, s;
    nango_session_reply_t   reply;

    static const char  *names[] = { "token", "connect_link", "expires_at" };

    copy = exact(body);
    rc = nango_session_reply_parse(&reply, copy);
    exact_free(copy);

    check(rc == 0 || rc == -1);

    json = load(body, 0);
    good = 1;

    if (json_is_object(json)) {
        data = json_object_get(json, "data");

        for (i = 0; i < 3; i++) {
            s = plain(data, names[i]);

            good = good && s.len >= 1 && s.len <= 4096
                   && nango_utf16_len(s) > 0;

            for (j = 0; i == 0 && j < s.len; j++) {
                good = good && token_char(s.data[j]);
            }
        }

        /* jansson goes deeper */

        good = good && nango_json_members(body, NULL, 0) == NANGO_JSON_OBJECT;

        check(rc == (good ? 0 : -1));

        if (rc == 0) {
            check(nango_str_eq(reply.token, plain(data, "token")));
            check(nango_str_eq(reply.connect_link,
                               plain(data, "connect_link")));
            check(nango_str_eq(reply.expires_at, plain(data, "expires_at")));
        }
    }

    json_decref(json);

    if (rc != 0) {
        check(reply.memory == NULL && reply.token.data == NULL);
        return;
    }

    check(reply.token.len >= 1 && reply.token.len <= 4096);
    check(reply.connect_link.len >= 1 && reply.connect_link.len <= 4096);
    check(reply.expires_at.len >= 1 && reply.expires_at.len <= 4096);
    check(nango_utf16_len(reply.connect_link) > 0);
    check(nango_utf16_len(reply.expires_at) > 0);

    for (j = 0; j < reply.token.len; j++) {
        check(token_char(reply.token.data[j]));
    }

    check_answer(&reply, url, 0);
    check_answer(&reply, url, 1);

    nango_session_reply_free(&reply);
}


/* A text for the log, made of what was sent. */

static void
check_text(const char *text, size_t max, nango_str_t sent)
{
    size_t         i, len;
    unsigned char  c;

    len = strlen(text);

    check(len <= max && len <= sent.len);
    check(len == sent.len || len + 4 > max);

    for (i = 0; i < len; i++) {
        c = sent.data[i];
        check((unsigned char) text[i] == (c < 0x20 || c == 0x7f ? ' ' : c));
    }
}


static void
error_fuzz(nango_str_t body)
{
    size_t             i;
    json_t            *json, *error, *first;
    nango_str_t        copy, message;
    nango_api_error_t  e;

    memset(&e, 'x', sizeof(e));

    copy = exact(body);
    nango_api_error_parse(&e, copy);
    exact_free(copy);

    check(memchr(e.code, '\0', sizeof(e.code)) != NULL);
    check(memchr(e.message, '\0', sizeof(e.message)) != NULL);

    for (i = 0; e.code[i]; i++) {
        check((unsigned char) e.code[i] >= 0x20 && e.code[i] != 0x7f);
    }

    for (i = 0; e.message[i]; i++) {
        check((unsigned char) e.message[i] >= 0x20 && e.message[i] != 0x7f);
    }

    check(nango_utf8_valid(nango_str(e.code, strlen(e.code))));
    check(nango_utf8_valid(nango_str(e.message, strlen(e.message))));

    json = load(body, 0);

    if (json_is_object(json)
        && nango_json_members(body, NULL, 0) == NANGO_JSON_OBJECT)
    {
        error = json_object_get(json, "error");
        message = plain(error, "message");

        first = json_array_get(json_object_get(error, "errors"), 0);

        if (json_object_get(first, "message")) {
            message = plain(first, "message");
        }

        check_text(e.code, 64, plain(error, "code"));
        check_text(e.message, 512, message);
    }

    json_decref(json);
}


static int
plain_id(json_t *json)
{
    return json_is_string(json)
           && nango_integration_valid(nango_str(json_string_value(json),
                                                json_string_length(json)));
}


static void
wish_fuzz(nango_str_t body)
{
    int                    rc, good;
    size_t                 i, n;
    void                  *iter;
    json_t                *json, *value;
    const char            *error, *name;
    nango_str_t            copy;
    nango_session_wish_t   wish;

    copy = exact(body);
    rc = nango_session_wish_parse(&wish, copy, &error);
    exact_free(copy);

    check(rc == 0 || rc == -1);
    check((rc == 0) == (error == NULL));

    for (i = 0; i < wish.nintegrations; i++) {
        check(rc == 0 && nango_integration_valid(wish.integrations[i]));
    }

    json = load(body, 0);

    if (json_is_object(json)
        && nango_json_members(body, NULL, 0) == NANGO_JSON_OBJECT)
    {
        good = (json_object_size(json) <= 1);
        n = 0;

        for (iter = json_object_iter(json); iter && good;
             iter = json_object_iter_next(json, iter))
        {
            name = json_object_iter_key(iter);
            value = json_object_iter_value(iter);

            if (json_object_iter_key_len(iter) == strlen(name)
                && (strcmp(name, "integration") == 0
                    || strcmp(name, "integration_id") == 0
                    || strcmp(name, "provider_config_key") == 0))
            {
                good = plain_id(value);
                n = 1;

                check(!good || rc != 0
                      || nango_str_is(wish.integrations[0],
                                      json_string_value(value)));

            } else if (strcmp(name, "integrations") == 0) {
                n = json_array_size(value);
                good = (n != 0);

                for (i = 0; i < n; i++) {
                    good = good && plain_id(json_array_get(value, i));
                }

                for (i = 0; i < n && good && rc == 0; i++) {
                    check(i < wish.nintegrations);
                    check(nango_str_is(wish.integrations[i],
                              json_string_value(json_array_get(value, i))));
                }

            } else {
                good = 0;
            }
        }

        check(rc == (good ? 0 : -1));
        check(rc != 0 || wish.nintegrations == n);
    }

    json_decref(json);

    if (rc == 0) {
        nango_session_wish_free(&wish);
    }

    check(wish.memory == NULL && wish.nintegrations == 0);
}


/*
 * A line with the format, the two ids of a reconnect and integrations, between
 * blanks; then a line for each tag.
 */

static void
session_fuzz(nango_str_t in)
{
    int              good;
    char            *text;
    char             name[NANGO_TAG_NAME_MAX + 1];
    size_t           i, len;
    json_t          *json, *tags, *user;
    nango_tag_t      tag[NANGO_TAGS_MAX];
    nango_str_t      line, ids[8], s;
    const char      *error;
    nango_session_t  session;

    memset(&session, 0, sizeof(session));

    line = take(&in, '\n');
    s = take(&line, ' ');

    session.format = take_byte(&s) % 3;
    session.connection_id = take(&line, ' ');
    session.integration_id = take(&line, ' ');

    if (session.connection_id.len == 0 || session.integration_id.len == 0) {
        session.connection_id = nango_str(NULL, 0);
        session.integration_id = nango_str(NULL, 0);
    }

    for (i = 0; i < 8 && line.len; i++) {
        ids[i] = take(&line, ' ');
    }

    session.integrations = ids;
    session.nintegrations = i;

    while (in.len && session.ntags < NANGO_TAGS_MAX) {
        line = take(&in, '\n');
        s = take(&line, ' ');

        /* Each name once, as is promised. */

        for (i = 0; i < session.ntags; i++) {
            if (nango_str_eq(tag[i].name, s)) {
                break;
            }
        }

        if (i == session.ntags) {
            tag[i].name = s;
            tag[i].value = line;
            session.ntags++;
        }
    }

    session.tags = tag;

    error = "untouched";
    text = nango_session_body(&session, &len, &error);

    good = 1;

    for (i = 0; i < session.ntags; i++) {
        good = good && nango_tag_name_error(tag[i].name) == NULL
               && nango_utf8_valid(tag[i].value);
    }

    if (session.connection_id.data) {
        good = good && nango_utf8_valid(session.connection_id)
               && nango_utf8_valid(session.integration_id);

    } else {
        for (i = 0; i < session.nintegrations; i++) {
            good = good && nango_utf8_valid(ids[i]);
        }
    }

    if (text == NULL) {
        check(error != NULL);
        check(!good || session.format == NANGO_SESSION_END_USER);
        return;
    }

    check(error == NULL);
    check(len != 0 && text[0] == '{' && text[len - 1] == '}');

    json = load(nango_str(text, len), JSON_ALLOW_NUL);
    check(json_is_object(json));

    if (session.connection_id.data) {
        check(nango_str_eq(plain(json, "connection_id"),
                           session.connection_id));
        check(nango_str_eq(plain(json, "integration_id"),
                           session.integration_id));
        check(json_object_get(json, "allowed_integrations") == NULL);

    } else {
        check(json_array_size(json_object_get(json, "allowed_integrations"))
              == session.nintegrations);
        check(json_object_get(json, "connection_id") == NULL);
    }

    tags = json_object_get(json, "tags");
    user = json_object_get(json, "end_user");

    check((tags != NULL) == (session.format != NANGO_SESSION_END_USER));
    check(user == NULL || session.format != NANGO_SESSION_TAGS);
    check(user != NULL || session.format != NANGO_SESSION_END_USER);
    check(tags == NULL || json_object_size(tags) == session.ntags);

    for (i = 0; i < session.ntags; i++) {
        memcpy(name, tag[i].name.data, tag[i].name.len);
        name[tag[i].name.len] = '\0';

        check(tags == NULL || nango_str_eq(plain(tags, name), tag[i].value));

        if (user == NULL) {
            continue;
        }

        if (strcmp(name, "end_user_id") == 0) {
            check(nango_str_eq(plain(user, "id"), tag[i].value));

        } else if (strcmp(name, "end_user_email") == 0) {
            check(nango_str_eq(plain(user, "email"), tag[i].value));

        } else if (strcmp(name, "end_user_display_name") == 0) {
            check(nango_str_eq(plain(user, "display_name"), tag[i].value));

        } else if (strcmp(name, "organization_id") == 0) {
            check(nango_str_eq(plain(json_object_get(json, "organization"),
                                     "id"),
                               tag[i].value));

        } else if (strcmp(name, "organization_display_name") != 0) {
            check(nango_str_eq(plain(json_object_get(user, "tags"), name),
                               tag[i].value));
        }
    }

    json_decref(json);
    free(text);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    nango_str_t  in, what, url;

    in = nango_str(data, size);
    what = take(&in, '\n');

    if (nango_str_is(what, "reply")) {
        url = take(&in, '\n');
        reply_fuzz(url, in);

    } else if (nango_str_is(what, "error")) {
        error_fuzz(in);

    } else if (nango_str_is(what, "wish")) {
        wish_fuzz(in);

    } else if (nango_str_is(what, "session")) {
        session_fuzz(in);
    }

    return 0;
}
