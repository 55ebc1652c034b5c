/*
 * Copyright (C) nginx-nango authors
 *
 * What a webhook's body says.  Total: every sequence of bytes is an event.
 * What cannot be understood is an event of type NANGO_TYPE_OTHER that changes
 * nothing; new types appear at Nango without notice, and a provider's raw
 * payload may be any JSON, "null" included.
 */

#ifndef _NANGO_EVENT_H_INCLUDED_
#define _NANGO_EVENT_H_INCLUDED_


#include "nango_str.h"
#include "nango_tags.h"


/* The numbers are on disk: add at the end, never change. */

typedef enum {
    NANGO_TYPE_OTHER = 0,
    NANGO_TYPE_AUTH = 1,
    NANGO_TYPE_SYNC = 2,
    NANGO_TYPE_ASYNC_ACTION = 3,
    NANGO_TYPE_FORWARD = 4
} nango_type_e;

typedef enum {
    NANGO_OP_NONE = 0,
    NANGO_OP_CREATION = 1,
    NANGO_OP_OVERRIDE = 2,
    NANGO_OP_REFRESH = 3,
    NANGO_OP_DELETION = 4,
    NANGO_OP_OTHER = 5
} nango_op_e;

typedef enum {
    NANGO_SUCCESS_NONE = 0,         /* not said */
    NANGO_SUCCESS_FALSE = 1,
    NANGO_SUCCESS_TRUE = 2
} nango_success_e;


#define NANGO_ID_MAX          1020     /* 255 characters of 4 bytes */
#define NANGO_ERROR_TYPE_MAX  255
#define NANGO_ERROR_TEXT_MAX  2048
#define NANGO_EVENT_TAGS_MAX  64


typedef struct {
    nango_type_e          type;
    nango_op_e            operation;
    nango_success_e       success;

    /*
     * "type" as it stood there, if it is a string of 1 to 64 printable ASCII
     * characters, else absent.
     */
    nango_str_t           type_name;

    /*
     * Ids are absent unless they are strings of 1 to NANGO_ID_MAX bytes of
     * UTF-8 without control characters.
     */
    nango_str_t           integration;
    nango_str_t           connection_id;

    /* From here on only after nango_event_parse(), not _parse_head(). */

    nango_str_t           provider;

    /*
     * Names in lower case.  From "tags"; if those are absent or empty, from
     * "endUser" (end_user_id, end_user_email, organization_id, and its own
     * tags, which do not override the former).  Left out are values that are
     * no strings, are empty, or break the rules of nango_tag_value_error() in
     * length or characters; names that nango_tag_name_error() refuses; and
     * either object if it is longer than NANGO_JSON_MAX_VALUE.  At most
     * NANGO_EVENT_TAGS_MAX are kept.
     */
    nango_tag_t          *tags;
    size_t                ntags;

    /*
     * error.type and error.description, unless success is true, cut to
     * NANGO_ERROR_TYPE_MAX and NANGO_ERROR_TEXT_MAX bytes at a character's
     * end; they may hold control characters.  One that is empty or that
     * nango_json_string() refuses is absent; the failure stands all the same.
     */
    nango_str_t           error_type;
    nango_str_t           error_text;

    /* Owns every string above. */
    void                 *memory;
} nango_event_t;


/*
 * Both return 0, or -1 if there is no memory, which is the only error; then
 * there is nothing to free.  Otherwise nango_event_free() ends the event.  The
 * event's strings are its own: body may be freed first.  _head reads what the
 * log's record needs and costs one pass over the body; the other reads all.
 * Integration is "providerConfigKey", connection id "connectionId".
 * Any thread.
 */
int nango_event_parse_head(nango_event_t *ev, nango_str_t body);
int nango_event_parse(nango_event_t *ev, nango_str_t body);
void nango_event_free(nango_event_t *ev);

/*
 * A connection as Nango's API shows it (GET /connections/ID, or an element of
 * GET /connections), in the form of the event that would have told of it: type
 * auth, operation creation; success false if the connection needs to be
 * authorised again ("errors" has one of type "auth").  Tags are read as above,
 * those of "end_user" where there are none.  As _parse(); ids may be absent.
 */
int nango_event_parse_connection(nango_event_t *ev, nango_str_t object);

/*
 * The body that Nango would have sent for an auth event, compact and with its
 * members in order, but for "from", which is "nango-edge".  Owned by the
 * caller, freed with free(); NULL if there is no memory or a string is no
 * UTF-8.  Without success "success" is left out.
 */
char *nango_event_body(const nango_event_t *ev, nango_str_t environment,
    size_t *len);

/* Static, never NULL: "auth", "creation"; "" for NONE; "other" for others. */
const char *nango_type_name(nango_type_e type);
const char *nango_op_name(nango_op_e op);

/*
 * Whether a repeat within the time span of Nango's retries is a duplicate.
 * Forwards and unknown types are not: identical pings are separate events.
 */
int nango_type_dedupes(nango_type_e type);


#endif /* _NANGO_EVENT_H_INCLUDED_ */
