/*
 * Copyright (C) nginx-nango authors
 *
 * The credentials of connections, asked of Nango once for all who wait, in all
 * workers, and kept in shared memory until shortly before they expire.  Never
 * on disk, never in a log.
 *
 * Called on a worker's event loop, and handlers are too.
 */

#ifndef _NGX_NANGO_CREDENTIAL_H_INCLUDED_
#define _NGX_NANGO_CREDENTIAL_H_INCLUDED_


#include "ngx_nango.h"

#include "nango_credential.h"


#define NGX_NANGO_CREDENTIAL_MAX  (16 * 1024)


/* Why there are none. */
typedef enum {
    NGX_NANGO_CREDENTIAL_OK = 0,
    NGX_NANGO_CREDENTIAL_UNAVAILABLE,   /* Nango is not to be reached */
    NGX_NANGO_CREDENTIAL_TIMEOUT,
    NGX_NANGO_CREDENTIAL_ERROR,         /* it answered something else */
    NGX_NANGO_CREDENTIAL_LIMITED,       /* over the account's rate limit */
    NGX_NANGO_CREDENTIAL_INVALID,       /* to be authorised again */
    NGX_NANGO_CREDENTIAL_MISSING,       /* no such connection at Nango */
    NGX_NANGO_CREDENTIAL_CHANGED        /* there is a newer version of it */
} ngx_nango_credential_e;


typedef struct ngx_nango_credential_s  ngx_nango_credential_t;

struct ngx_nango_credential_s {
    /*
     * Set by who asks, zero otherwise.  version is greater whenever the
     * connection has changed: what was kept is not used any more then.  insist
     * says that it is the newest, whatever is kept: it was looked up again.
     */
    ngx_nango_environment_t  *environment;
    u_char                    key[NANGO_KEY_LEN];
    uint64_t                  version;
    nango_str_t               integration;
    nango_str_t               connection_id;
    u_char                   *data;         /* NGX_NANGO_CREDENTIAL_MAX */
    void                    (*handler)(ngx_nango_credential_t *c);
    void                     *context;
    unsigned                  insist:1;

    /* The result: packed, see nango_credential.h. */
    size_t                    len;
    ngx_nango_credential_e    failure;

    /* Private. */
    ngx_queue_t               queue;
    ngx_msec_t                deadline;
    unsigned                  waiting:1;
};


/* Adds the zone to the configuration, once. */
ngx_int_t ngx_nango_credential_add(ngx_conf_t *cf, void *tag);

/* Ends what is under way, without calling handlers. */
void ngx_nango_credential_exit(void);

/*
 * NGX_OK: len or failure is set.  NGX_AGAIN: handler will be called once, when
 * they are, unless ngx_nango_credential_cancel() was called before.
 */
ngx_int_t ngx_nango_credential_get(ngx_nango_credential_t *c);
void ngx_nango_credential_cancel(ngx_nango_credential_t *c);


#endif /* _NGX_NANGO_CREDENTIAL_H_INCLUDED_ */
