/*
 * Copyright (C) nginx-nango authors
 *
 * Who follows the log.  While anybody does, the event loop looks every 10 ms
 * at what has been applied, reads it once for all of the worker, and wakes
 * those, and only those, whom it concerns.  What is new stays for a while, so
 * that a thousand followers of one event cost one reading and one rendering.
 */

#ifndef _NGX_NANGO_TAIL_H_INCLUDED_
#define _NGX_NANGO_TAIL_H_INCLUDED_


#include "ngx_nango_store.h"

#include "nango_show.h"


typedef struct ngx_nango_tail_s  ngx_nango_tail_t;

struct ngx_nango_tail_s {
    /* The follower's, until it has left: both live as long as the tail. */
    u_char                    key[NANGO_KEY_LEN];
    nango_wanted_t            wanted;
    void                    (*handler)(ngx_nango_tail_t *tail);
    void                     *data;

    /* All up to here is known. */
    uint64_t                  position;

    /* Private. */
    ngx_queue_t               queue;
    ngx_queue_t               ready;
    uint64_t                  since;
    unsigned                  idle:1;
    unsigned                  waking:1;
};


/* A new event, shared by all who see it. */
typedef struct {
    nango_logged_t            logged;
    nango_record_t            record;
    u_char                    key[NANGO_KEY_LEN];
    nango_tag_t              *tags;             /* of its connection */
    size_t                    ntags;

    /* Private. */
    ngx_uint_t                references;
    size_t                    size;
    nango_text_t              head[2];
    nango_text_t              owner;
    nango_text_t              body[4];
    u_char                    data[1];
} ngx_nango_tail_event_t;


/*
 * Follows from position on, which may be anywhere; applied is what the caller
 * has seen to be applied.  key is nango_owner_key() of the first tag that is
 * wanted, or that of the environment if nothing is said of an owner.
 */
void ngx_nango_tail_join(ngx_nango_tail_t *tail, uint64_t applied);
void ngx_nango_tail_leave(ngx_nango_tail_t *tail);

/*
 * The first event after position that concerns the tail.  NGX_OK: *event, to
 * be released, and position is at it.  NGX_AGAIN: it has to be looked for in
 * the log, and position set to how far that went.  NGX_DECLINED: there is none
 * yet; the handler will be called once there is, and this again.  It is called
 * as well when the worker exits, whatever the tail is waiting for.
 */
ngx_int_t ngx_nango_tail_next(ngx_nango_tail_t *tail,
    ngx_nango_tail_event_t **event);

/* position, or where nothing is new what all know by now. */
uint64_t ngx_nango_tail_position(ngx_nango_tail_t *tail);

void ngx_nango_tail_release(ngx_nango_tail_event_t *event);

/*
 * The pieces of an event stream: with its lines and the event's head; with the
 * tags of its connection; with the body and its end.  Absent if there is no
 * memory.  They live as long as the event.  show: of nango_show.h.
 */
nango_str_t ngx_nango_tail_head(ngx_nango_tail_event_t *event,
    ngx_uint_t show);
nango_str_t ngx_nango_tail_owner(ngx_nango_tail_event_t *event);
nango_str_t ngx_nango_tail_body(ngx_nango_tail_event_t *event,
    ngx_uint_t show);


#endif /* _NGX_NANGO_TAIL_H_INCLUDED_ */
