/*
 * Copyright (C) nginx-nango authors
 *
 * A server that never accepts, with a queue that is full: whoever connects
 * gets no answer to its SYN.  Prints the port, and ends with its input.
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>


#define TRIES  64


int
main(void)
{
    int                 i, fd, listening;
    char                c;
    socklen_t           len;
    struct pollfd       pfd;
    struct sockaddr_in  sin = { .sin_family = AF_INET };

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    len = sizeof(sin);

    listening = socket(AF_INET, SOCK_STREAM, 0);

    if (listening == -1
        || bind(listening, (struct sockaddr *) &sin, len) == -1
        || listen(listening, 0) == -1
        || getsockname(listening, (struct sockaddr *) &sin, &len) == -1)
    {
        perror("backlog");
        return 1;
    }

    for (i = 0; i < TRIES; i++) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

        (void) connect(fd, (struct sockaddr *) &sin, sizeof(sin));

        pfd.fd = fd;
        pfd.events = POLLOUT;

        if (poll(&pfd, 1, 300) == 0) {
            break;
        }
    }

    if (i == TRIES) {
        (void) fprintf(stderr, "backlog: the queue does not become full\n");
        return 1;
    }

    (void) printf("%u\n", ntohs(sin.sin_port));
    (void) fflush(stdout);

    while (read(STDIN_FILENO, &c, 1) > 0) { /* void */ }

    return 0;
}
