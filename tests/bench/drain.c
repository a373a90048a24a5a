/* drain: many cheap clients of one server, that read everything, throw it away and keep count.
 *
 *   drain PORT sse|ws READY REQUEST [SUBSCRIBE]
 *
 * Each connection sends REQUEST; a ws one sends SUBSCRIBE, masked, once the handshake is answered, and answers
 * pings. A connection is ready when READY was seen in what it received. Every event carries "~" and eight digits,
 * its number from 1 on: each connection must see 1, 2, 3, ... and everything else is a fault.
 *
 * Commands on stdin, one JSON line in answer to each:
 *   open N     N more connections (answered at once; `report` tells when they are ready)
 *   report     the counts
 *   close      close every connection
 * The end of stdin ends the program. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, OPENING_AT_ONCE = 128, DIGITS = 8 };
enum phase { CONNECTING, HEAD, BODY, CLOSED };

struct connection {
    int fd;
    enum phase phase;
    int ready, ready_at;              /* how much of READY has been matched */
    int head_at;                      /* how much of CR LF CR LF has been matched */
    int digit_at;                     /* 0: no "~" open, else 1 + digits read */
    uint32_t number, seen;            /* the number being read; the last event's number */
    /* the WebSocket frame that is being read */
    int frame_at, opcode, control_len;
    uint64_t left;
    unsigned char head[10], control[125];
};

static struct connection *connections[MAX_CONNECTIONS];
static int count, wanted, opening, epoll_fd, is_ws, port;
static const char *ready_text, *request_text, *subscribe_text;
static uint64_t bytes, events, reads, faults, closed, ready, pings;
static int closing;
static char buffer[1 << 18];

static void die(const char *what) { perror(what); exit(1); }

static void lost(struct connection *c) {
    if (c->phase == CLOSED) return;
    if (!c->ready) opening--;
    if (!closing) closed++;
    c->phase = CLOSED;
    close(c->fd);
}

static void say(struct connection *c, const void *data, size_t size) {
    if (send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size) lost(c);
}

static void say_frame(struct connection *c, int opcode, const void *data, size_t size) {
    static const unsigned char key[4] = {0x12, 0x34, 0x56, 0x78};
    unsigned char frame[4096];
    size_t at = 0;
    if (size > sizeof frame - 8) { fprintf(stderr, "drain: message too long\n"); exit(1); }
    frame[at++] = (unsigned char)(0x80 | opcode);
    if (size < 126) frame[at++] = (unsigned char)(0x80 | size);
    else {
        frame[at++] = 0x80 | 126;
        frame[at++] = (unsigned char)(size >> 8);
        frame[at++] = (unsigned char)size;
    }
    memcpy(frame + at, key, 4);
    at += 4;
    for (size_t i = 0; i < size; i++) frame[at++] = ((const unsigned char *)data)[i] ^ key[i & 3];
    say(c, frame, at);
}

/* Both texts begin with a character that does not come again before their end, so after a mismatch it is enough
 * to ask whether this character begins them anew. */
static int match(const char *text, int at, char ch) {
    if (ch == text[at]) return at + 1;
    return ch == text[0] ? 1 : 0;
}

static void text(struct connection *c, const char *data, size_t size) {
    const char *end = data + size;
    if (!c->ready) {
        for (const char *p = data; p < end && !c->ready; p++) {
            c->ready_at = match(ready_text, c->ready_at, *p);
            if (!ready_text[c->ready_at]) { c->ready = 1; ready++; opening--; }
        }
    }
    for (const char *p = data; p < end; p++) {
        if (!c->digit_at) {
            p = memchr(p, '~', (size_t)(end - p));
            if (!p) return;
            c->digit_at = 1;
            c->number = 0;
        } else if (*p >= '0' && *p <= '9') {
            c->number = c->number * 10 + (uint32_t)(*p - '0');
            if (c->digit_at++ == DIGITS) {
                if (c->number != c->seen + 1) faults++;
                c->seen = c->number;
                events++;
                c->digit_at = 0;
            }
        } else { faults++; c->digit_at = 0; }
    }
}

static void frames(struct connection *c, const char *data, size_t size) {
    size_t i = 0;
    while (i < size && c->phase != CLOSED) {
        if (c->left == 0 || c->frame_at) {      /* inside a frame's head */
            c->head[c->frame_at++] = (unsigned char)data[i++];
            int need = 2;
            if (c->frame_at >= 2) need = (c->head[1] & 127) == 126 ? 4 : (c->head[1] & 127) == 127 ? 10 : 2;
            if (c->frame_at < need) continue;
            c->opcode = c->head[0] & 15;
            c->left = c->head[1] & 127;
            c->control_len = 0;
            if (need > 2) {
                c->left = 0;
                for (int k = 2; k < need; k++) c->left = c->left << 8 | c->head[k];
            }
            c->frame_at = 0;
        } else {
            size_t take = size - i < c->left ? size - i : (size_t)c->left;
            if (c->opcode < 8) text(c, data + i, take);
            else {
                if (c->left > 125) { faults++; lost(c); return; }
                memcpy(c->control + c->control_len, data + i, take);
                c->control_len += (int)take;
            }
            c->left -= take;
            i += take;
        }
        if (c->left == 0 && c->opcode == 9) {
            pings++;
            say_frame(c, 10, c->control, (size_t)c->control_len);
        }
        if (c->left == 0 && c->opcode == 8) lost(c);
    }
}

static void received(struct connection *c, const char *data, size_t size) {
    size_t i = 0;
    if (c->phase == HEAD) {
        for (; i < size && c->head_at < 4; i++) {
            static const char blank[] = "\r\n\r\n";
            if (data[i] == blank[c->head_at]) c->head_at++;
            else c->head_at = data[i] == '\r';
        }
        if (c->head_at < 4) return;
        c->phase = BODY;
        if (is_ws && subscribe_text) say_frame(c, 1, subscribe_text, strlen(subscribe_text));
    }
    if (c->phase != BODY || i == size) return;
    if (is_ws) frames(c, data + i, size - i);
    else text(c, data + i, size - i);
}

static void open_more(void) {
    while (count < wanted && opening < OPENING_AT_ONCE) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        struct epoll_event on = {.events = EPOLLIN | EPOLLOUT};
        struct connection *c = calloc(1, sizeof *c);
        int one = 1;
        if (!c) die("calloc");
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0) die("socket");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
        connections[count++] = c;
        opening++;
        on.data.ptr = c;
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &on)) die("epoll_ctl");
    }
}

static void serve(struct connection *c, uint32_t what) {
    if (c->phase == CLOSED) return;
    if (c->phase == CONNECTING) {
        struct epoll_event on = {.events = EPOLLIN, .data.ptr = c};
        int error = 0;
        socklen_t size = sizeof error;
        if (!(what & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) { lost(c); return; }
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &on);
        c->phase = HEAD;
        say(c, request_text, strlen(request_text));
        return;
    }
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got > 0) {
        reads++;
        bytes += (uint64_t)got;
        received(c, buffer, (size_t)got);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) lost(c);
}

static void report(void) {
    uint32_t low = UINT32_MAX, high = 0;
    for (int i = 0; i < count; i++) {
        if (connections[i]->seen < low) low = connections[i]->seen;
        if (connections[i]->seen > high) high = connections[i]->seen;
    }
    printf("{\"opened\":%d,\"ready\":%llu,\"closed\":%llu,\"bytes\":%llu,\"events\":%llu,\"reads\":%llu,"
           "\"faults\":%llu,\"pings\":%llu,\"low\":%u,\"high\":%u}\n", count, (unsigned long long)ready,
           (unsigned long long)closed, (unsigned long long)bytes, (unsigned long long)events,
           (unsigned long long)reads, (unsigned long long)faults, (unsigned long long)pings, count ? low : 0, high);
    fflush(stdout);
}

static void obey(const char *line) {
    if (!strncmp(line, "open ", 5)) {
        wanted += atoi(line + 5);
        if (wanted > MAX_CONNECTIONS) { fprintf(stderr, "drain: too many connections\n"); exit(1); }
        open_more();
    } else if (!strcmp(line, "close")) {
        closing = 1;
        for (int i = 0; i < count; i++) lost(connections[i]);
    } else if (strcmp(line, "report")) { fprintf(stderr, "drain: unknown command %s\n", line); exit(1); }
    report();
}

int main(int argc, char **argv) {
    struct epoll_event on = {.events = EPOLLIN, .data.ptr = NULL}, got[512];
    char line[256];
    size_t filled = 0;
    if (argc < 5) { fprintf(stderr, "usage: drain PORT sse|ws READY REQUEST [SUBSCRIBE]\n"); return 2; }
    port = atoi(argv[1]);
    is_ws = !strcmp(argv[2], "ws");
    ready_text = argv[3];
    request_text = argv[4];
    subscribe_text = argc > 5 ? argv[5] : NULL;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &on)) die("epoll");
    for (;;) {
        int n = epoll_wait(epoll_fd, got, 512, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (got[i].data.ptr) { serve(got[i].data.ptr, got[i].events); continue; }
            ssize_t more = read(0, line + filled, sizeof line - filled - 1);
            if (more <= 0) return 0;
            filled += (size_t)more;
            line[filled] = 0;
            for (char *eol; (eol = strchr(line, '\n'));) {
                *eol = 0;
                obey(line);
                filled -= (size_t)(eol + 1 - line);
                memmove(line, eol + 1, filled + 1);
            }
        }
        open_more();
    }
}
