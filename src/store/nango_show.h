/*
 * Copyright (C) nginx-nango authors
 *
 * An event as JSON, in pieces, so that those who see the same event share what
 * is alike.
 */

#ifndef _NANGO_SHOW_H_INCLUDED_
#define _NANGO_SHOW_H_INCLUDED_


#include "nango_events.h"
#include "nango_text.h"


/*
 * The pieces of an event's JSON, in their order.  Any thread.
 *
 *     {"sequence":1,...,"id":"..."      _head()
 *     ,"connection_id":"..."            _head() with show & _SHOW_ID
 *     ,"owner":{...}                    _owner()
 *     ,"body_format":"json","body":...} _body()
 *
 * Without _SHOW_ID and _SHOW_TAGS the members of the body that hold an id or
 * tags are left out: "connectionId"; "tags" and "endUser".  A body that is no
 * JSON is a string ("text"), one that is no UTF-8 either is base64, and one
 * that is a file is null, with its length.  _SHOW_LINES: for an event stream,
 * whose data may have line ends only where the next line says that it goes on.
 */
#define NANGO_SHOW_ID     1
#define NANGO_SHOW_TAGS   2
#define NANGO_SHOW_LINES  4

void nango_show_head(nango_text_t *t, const nango_logged_t *event,
    unsigned show);
void nango_show_owner(nango_text_t *t, const nango_tag_t *tags, size_t n);
void nango_show_body(nango_text_t *t, const nango_record_t *record,
    unsigned show);

/* The lines of an event stream that come before its JSON. */
void nango_show_lines(nango_text_t *t, const unsigned char *log,
    const nango_logged_t *event);


#endif /* _NANGO_SHOW_H_INCLUDED_ */
