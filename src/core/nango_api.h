/*
 * Copyright (C) nginx-nango authors
 *
 * The bodies of Nango's API, both ways: the request for a session token, its
 * reply, errors in their three shapes; and the answer that our own endpoint
 * makes of it.  Shapes as measured on Nango's server 0.71.4.
 */

#ifndef _NANGO_API_H_INCLUDED_
#define _NANGO_API_H_INCLUDED_


#include "nango_hash.h"
#include "nango_str.h"
#include "nango_tags.h"


typedef enum {
    NANGO_SESSION_TAGS = 0,     /* {"tags":{}} */
    NANGO_SESSION_END_USER,     /* the guide's {"end_user":{},...} */
    NANGO_SESSION_BOTH
} nango_session_format_e;


/*
 * A member of "integrations_config_defaults": "user_scopes", which has no
 * name, or a name of "authorization_params" or "connection_config".
 */
typedef struct {
    nango_str_t             integration;
    nango_str_t             key;
    nango_str_t             name;
    nango_str_t             value;
} nango_session_default_t;

/* "overrides": what a page of Connect UI links to as documentation. */
typedef struct {
    nango_str_t             integration;
    nango_str_t             url;
} nango_session_docs_t;


/*
 * What a session is asked for.  Names of tags in lower case, each once, owners
 * first.  integrations with n == 0: "allowed_integrations" is left out.
 * reconnect: both ids, or both absent; "allowed_integrations" is left out,
 * since Nango refuses it there.  Defaults and docs are for integrations that
 * the session may be for: Nango refuses ids that it does not know.
 */
typedef struct {
    nango_session_format_e  format;
    const nango_tag_t      *tags;
    size_t                  ntags;
    const nango_str_t      *integrations;
    size_t                  nintegrations;
    nango_str_t             connection_id;
    nango_str_t             integration_id;
    const nango_session_default_t  *defaults;
    size_t                  ndefaults;
    const nango_session_docs_t     *docs;
    size_t                  ndocs;
    nango_str_t             webhook_url;    /* empty: Nango's own setting */
} nango_session_t;


/*
 * The compact JSON body of POST /connect/sessions (or .../reconnect): members
 * in a fixed order, so that the same session is the same bytes.  Owned by the
 * caller, freed with free(), not terminated by zero.  NULL: no memory, or a
 * string is no UTF-8 or a tag's name is none that Nango takes (then *error
 * says what and is static; NULL for memory).
 *
 * NANGO_SESSION_END_USER translates back: end_user_id to end_user.id,
 * end_user_email to .email, end_user_display_name to .display_name, all other
 * tags to end_user.tags; organization_id and organization_display_name to
 * "organization", which is a sibling of "end_user".  Without end_user_id there
 * is no "end_user" to send, since Nango demands its id: then NULL and *error
 * for END_USER; BOTH sends tags alone.  "organization" is left out
 * without its id.
 */
char *nango_session_body(const nango_session_t *s, size_t *len,
    const char **error);


/* Reply of 201: {"data":{"token","connect_link","expires_at"}}. */
typedef struct {
    nango_str_t           token;
    nango_str_t           connect_link;
    nango_str_t           expires_at;
    void                 *memory;
} nango_session_reply_t;

/*
 * 0, -1 if it is not what is expected (each of the three a non-empty string of
 * at most 4096 bytes without control characters, the token of
 * [A-Za-z0-9_-] only), -2 if there is no memory.  After 0 ended by _free().
 */
int nango_session_reply_parse(nango_session_reply_t *reply, nango_str_t body);
void nango_session_reply_free(nango_session_reply_t *reply);


/*
 * Our answer: {"sessionToken","connectLink","expiresAt","apiURL",
 * "connectURL"}.  link_api: append apiURL=<api_url, percent-encoded> to the
 * connect link's query, before any fragment, unless it has one: a self-hosted
 * Nango's link does not work without.  Owned by the caller, freed with free();
 * NULL if there is no memory or a string is no UTF-8.
 */
char *nango_session_answer(const nango_session_reply_t *reply,
    nango_str_t api_url, nango_str_t connect_url, int link_api, size_t *len);


/*
 * code and message of an error in any of Nango's shapes:
 *     {"error":{"code","message"}}
 *     {"error":{"code","errors":[{"code","message","path"}]}}
 *     {"error":{"message","code","payload"}}
 * With an errors array, message is that of its first.  Cut to 64 and 512
 * bytes, control characters replaced by spaces: fit for a log.  Both empty if
 * the body is anything else.
 */
typedef struct {
    char                  code[65];
    char                  message[513];
} nango_api_error_t;

void nango_api_error_parse(nango_api_error_t *e, nango_str_t body);

/* Whether the body is an object whose "success" is true. */
int nango_api_success(nango_str_t body);


/*
 * The body of a request to our own nango_session endpoint: nothing, or an
 * object with "integration" (aliases "integration_id", "provider_config_key")
 * or "integrations": [..], and no other field.  0, or -1 and *error: a
 * message for the client, static.  -2: no memory.  ids are owned by the
 * request and ended by _free() after 0.  Ids are syntax-checked here.
 */
typedef struct {
    nango_str_t          *integrations;
    size_t                nintegrations;
    void                 *memory;
} nango_session_wish_t;

int nango_session_wish_parse(nango_session_wish_t *wish, nango_str_t body,
    const char **error);
void nango_session_wish_free(nango_session_wish_t *wish);


/*
 * The body of a request about one connection: {"id"}, {"integration"} (aliases
 * as above) or both "integration" and "connection_id", as far as accept allows
 * it, and no other field.  0, or -1 and *error: a message for the client,
 * static.  Strings are in buf, which takes body.len bytes; absent ones have
 * NULL data.  Ids are syntax-checked here; an "id" of another form than ours
 * is one that nobody has, all zeros.
 */
#define NANGO_TARGET_ID             0x01    /* {"id"} */
#define NANGO_TARGET_INTEGRATION    0x02    /* {"integration"} */
#define NANGO_TARGET_CONNECTION     0x04    /* both ids, as Nango has them */

typedef struct {
    unsigned              by;               /* one of the above */
    unsigned char         id[NANGO_KEY_LEN];
    nango_str_t           integration;
    nango_str_t           connection_id;
} nango_target_t;

int nango_target_parse(nango_target_t *target, nango_str_t body,
    unsigned accept, unsigned char *buf, const char **error);


/*
 * "/connections/ID?provider_config_key=INTEGRATION", percent-encoded and
 * terminated by zero; NULL if there is no memory.  Owned by the caller, freed
 * with free().  Never for the ids "." and "..", which would name another path
 * however they are written: nango_connection_id_usable().
 */
char *nango_connection_path(nango_str_t connection_id,
    nango_str_t integration);
int nango_connection_id_usable(nango_str_t connection_id);


#endif /* _NANGO_API_H_INCLUDED_ */
