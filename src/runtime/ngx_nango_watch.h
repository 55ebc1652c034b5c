/*
 * Copyright (C) nginx-nango authors
 *
 * Who waits until something of an owner changes.  While anybody does, the
 * event loop looks every 10 ms at what the fold has changed and wakes those,
 * and only those, whom it concerns.
 */

#ifndef _NGX_NANGO_WATCH_H_INCLUDED_
#define _NGX_NANGO_WATCH_H_INCLUDED_


#include "ngx_nango_store.h"


typedef struct ngx_nango_watch_s  ngx_nango_watch_t;

struct ngx_nango_watch_s {
    ngx_queue_t    queue;
    u_char         key[NANGO_KEY_LEN];      /* nango_owner_key() of a tag */
    void         (*handler)(ngx_nango_watch_t *watch);
    void          *data;
};


/*
 * The handler is called once, from the loop: when a change after sequence,
 * which the caller has seen to be applied, concerns the key, perhaps a little
 * before; or when the worker exits.  The watch is the caller's again then, and
 * after ngx_nango_watch_cancel().
 */
void ngx_nango_watch(ngx_nango_watch_t *watch, uint64_t sequence);
void ngx_nango_watch_cancel(ngx_nango_watch_t *watch);


#endif /* _NGX_NANGO_WATCH_H_INCLUDED_ */
