/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * usage: http_client PORT REQUESTS: asks a server on 127.0.0.1 for / so many times, over four
 * connections that stay open, and prints how many nanoseconds that took, all answers included.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 4 };

static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int connected(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int attempt = 0; attempt < 2000; attempt++) { /* the server may be starting */
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (fd < 0)
            fail("socket");
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
            struct timeval patience = {.tv_sec = 60};

            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
            return fd;
        }
        close(fd);
        usleep(10000);
    }
    fail("connect");
    return -1;
}

/* Reads one answer: its head, and as many bytes as that says. */
static void answer(int fd)
{
    char buffer[65536];
    size_t got = 0, wanted = 0;

    while (!wanted || got < wanted) {
        ssize_t length = recv(fd, buffer + got, sizeof buffer - 1 - got, 0);
        char *end, *field;

        if (length <= 0)
            fail("recv");
        got += length;
        buffer[got] = 0;
        if (wanted || !(end = strstr(buffer, "\r\n\r\n")))
            continue;
        field = strstr(buffer, "Content-Length: ");
        if (strncmp(buffer, "HTTP/1.1 200", 12) != 0 || !field) {
            fprintf(stderr, "not what was asked for: %.40s\n", buffer);
            exit(1);
        }
        wanted = end + 4 - buffer + strtoul(field + 16, NULL, 10);
    }
}

int main(int argc, char **argv)
{
    long requests = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    struct timespec start, end;
    int fds[CONNECTIONS];

    if (requests < 1)
        return 2;
    for (int i = 0; i < CONNECTIONS; i++)
        fds[i] = connected(atoi(argv[1]));
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long done = 0; done < requests; done += CONNECTIONS) {
        for (int i = 0; i < CONNECTIONS; i++)
            if (send(fds[i], request, sizeof request - 1, MSG_NOSIGNAL) < 0)
                fail("send");
        for (int i = 0; i < CONNECTIONS; i++)
            answer(fds[i]);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%ld\n", (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec);
    return 0;
}
