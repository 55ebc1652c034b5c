/*
 * Copyright (C) nginx-nango authors
 *
 * Preloaded: a resolver whose names say how it goes, so that slow and broken
 * DNS needs neither a server nor privileges.
 *
 *     hang-N.test    nothing for N seconds, then no such name
 *     fail.test      no such name
 *     again.test     no answer of any server
 *     two.test       127.0.0.9, where nobody listens, then 127.0.0.1
 *     slow-N.test    port N of 127.0.0.1, then the port that is asked for
 *     held.test      nothing until there is a file NANGO_NAMES, then 127.0.0.1
 *     absent.test    no such name until there is that file, then 127.0.0.1
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


typedef int (*resolve_pt)(const char *, const char *, const struct addrinfo *,
    struct addrinfo **);


static const char  *names;


/* Workers have another environment. */

static void __attribute__((constructor))
begin(void)
{
    const char  *path;

    path = getenv("NANGO_NAMES");

    if (path != NULL) {
        names = strdup(path);
    }
}


static int
told(void)
{
    return names != NULL && access(names, F_OK) == 0;
}


/* One address and then 127.0.0.1. */

static int
both(resolve_pt next, const char *first, const char *port,
    const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
    int               rc;
    struct addrinfo  *second;

    rc = next(first, port, hints, res);

    if (rc != 0) {
        return rc;
    }

    rc = next("127.0.0.1", service, hints, &second);

    if (rc != 0) {
        freeaddrinfo(*res);
        return rc;
    }

    (*res)->ai_next = second;

    return 0;
}


int
getaddrinfo(const char *node, const char *service,
    const struct addrinfo *hints, struct addrinfo **res)
{
    char        port[6];
    resolve_pt  next;

    *(void **) &next = dlsym(RTLD_NEXT, "getaddrinfo");

    if (node == NULL) {
        return next(node, service, hints, res);
    }

    if (strncmp(node, "hang-", 5) == 0) {
        (void) sleep((unsigned) atoi(node + 5));
        return EAI_NONAME;
    }

    if (strcmp(node, "fail.test") == 0) {
        return EAI_NONAME;
    }

    if (strcmp(node, "again.test") == 0) {
        return EAI_AGAIN;
    }

    if (strcmp(node, "held.test") == 0) {

        while (!told()) {
            (void) usleep(20000);
        }

        return next("127.0.0.1", service, hints, res);
    }

    if (strcmp(node, "absent.test") == 0) {
        return told() ? next("127.0.0.1", service, hints, res) : EAI_NONAME;
    }

    if (strcmp(node, "two.test") == 0) {
        return both(next, "127.0.0.9", service, service, hints, res);
    }

    if (strncmp(node, "slow-", 5) == 0) {
        (void) snprintf(port, sizeof(port), "%d", atoi(node + 5));
        return both(next, "127.0.0.1", port, service, hints, res);
    }

    return next(node, service, hints, res);
}
