/* floor: what the kernel alone asks for a fan-out. It accepts connections on loopback, greets them, and send()s one
 * frame to each of them, paced, in one bare loop over all sockets. Nothing is parsed, nothing is waited for.
 *
 *   floor GREETING-FILE FRAME-FILE       prints the port it listens on
 *
 * Commands on stdin, one line in answer to each:
 *   accept N                             wait until N connections are there
 *   go FIRST COUNT JOINED INTERVAL_NS    COUNT sends per socket of JOINED frames each, one round every INTERVAL_NS;
 *                                        the frame's "~" and eight digits are numbered from FIRST on
 * The end of stdin ends the program. A send the kernel does not take whole is a fault: the program says so and ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NUMBER "~00000000" /* of the frame as it comes; "~" alone may also be part of a WebSocket head */

enum { MAX_CONNECTIONS = 65536, MAX_FRAME = 65536, DIGITS = 8 };

static int sockets[MAX_CONNECTIONS], count, listener;
static char greeting[MAX_FRAME], frame[MAX_FRAME];
static size_t greeting_size, frame_size;

static void die(const char *what) { perror(what); exit(1); }

static size_t load(const char *path, char *into) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    size_t size = fread(into, 1, MAX_FRAME - 1, file);
    fclose(file);
    return size;
}

static void accept_until(int wanted) {
    int one = 1;
    while (count < wanted && count < MAX_CONNECTIONS) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) die("accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (send(fd, greeting, greeting_size, MSG_NOSIGNAL) != (ssize_t)greeting_size) die("greeting");
        sockets[count++] = fd;
    }
}

static void go(unsigned first, int rounds, int joined, long interval_ns) {
    size_t size = frame_size * (size_t)joined, digits_at;
    char *batch = malloc(size), *tilde = memmem(frame, frame_size, NUMBER, strlen(NUMBER)), digits[16];
    struct timespec due;
    if (!batch || !tilde) { fprintf(stderr, "floor: no number in the frame\n"); exit(1); }
    digits_at = (size_t)(tilde - frame) + 1;
    for (int j = 0; j < joined; j++) memcpy(batch + frame_size * (size_t)j, frame, frame_size);
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (int round = 0; round < rounds; round++) {
        for (int j = 0; j < joined; j++) {
            snprintf(digits, sizeof digits, "%0*u", DIGITS, first++);
            memcpy(batch + frame_size * (size_t)j + digits_at, digits, DIGITS);
        }
        for (int i = 0; i < count; i++)
            if (send(sockets[i], batch, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size) die("floor: send");
        due.tv_nsec += interval_ns;
        due.tv_sec += due.tv_nsec / 1000000000L;
        due.tv_nsec %= 1000000000L;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
    free(batch);
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t at_size = sizeof at;
    char line[256];
    if (argc != 3) { fprintf(stderr, "usage: floor GREETING-FILE FRAME-FILE\n"); return 2; }
    greeting_size = load(argv[1], greeting);
    frame_size = load(argv[2], frame);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) die("listen");
    if (getsockname(listener, (struct sockaddr *)&at, &at_size)) die("getsockname");
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        unsigned first;
        int wanted, rounds, joined;
        long interval_ns;
        if (sscanf(line, "accept %d", &wanted) == 1) accept_until(wanted);
        else if (sscanf(line, "go %u %d %d %ld", &first, &rounds, &joined, &interval_ns) == 4)
            go(first, rounds, joined, interval_ns);
        else { fprintf(stderr, "floor: unknown command %s", line); return 2; }
        printf("done\n");
        fflush(stdout);
    }
    return 0;
}
