/* The one program of the test's container image; linked statically, because nothing else is in there.
 *
 *   box serve PORT FILE   answers any other GET with the content of FILE; GET /exit/N ends it with code N; SIGTERM with 0
 *   box deaf              ignores SIGTERM
 *   box exit N TEXT       says TEXT and ends with code N
 *   box eat               takes memory until somebody ends it
 *   box same FILE TEXT    ends with 0 where FILE begins with TEXT, else with 1
 *   box sleep             sleeps
 *   box orphans N M       N times, leaves M processes without their parent that end all at once; says `done`, and sleeps
 *   box family            leaves a process without its parent that ignores SIGTERM, and sleeps
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

static void ended(int signal) {
    (void)signal;
    _exit(0);
}

static int read_file(const char *path, char *buffer, size_t size) {
    int file = open(path, O_RDONLY);
    if (file < 0) return -1;
    ssize_t length = read(file, buffer, size - 1);
    close(file);
    buffer[length < 0 ? 0 : length] = 0;
    return length < 0 ? -1 : 0;
}

static int serve(int port, const char *path) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 8) != 0) return 1;
    signal(SIGTERM, ended);
    say("up");
    for (;;) {
        char request[1024] = {0}, content[4096] = {0}, answer[4200];
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        if (read(client, request, sizeof request - 1) < 0) request[0] = 0;
        if (strncmp(request, "GET /exit/", 10) == 0) {
            fprintf(stderr, "told to end with %d\n", atoi(request + 10));
            exit(atoi(request + 10));
        }
        const char *status = read_file(path, content, sizeof content) == 0 ? "200 OK" : "500 Gone";
        int length = snprintf(answer, sizeof answer, "HTTP/1.0 %s\r\n\r\n%s", status, content);
        if (write(client, answer, (size_t)length) < 0) perror("write");
        close(client);
    }
}

static _Noreturn void eat(void) {
    for (;;) {
        char *block = malloc(1 << 20);
        if (block != NULL) memset(block, 1, 1 << 20);
    }
}

/* They wait until the other end of the pipe is closed, so that the last one is there before the first one ends. */
static void orphan_many(int many) {
    int ends[2];
    if (pipe(ends) != 0) exit(1);
    for (int at = 0; at < many; at++) {
        pid_t parent = fork();
        if (parent < 0) exit(1);
        if (parent == 0) {
            if (fork() == 0) {
                char none;
                close(ends[1]);
                while (read(ends[0], &none, 1) > 0) continue;
            }
            _exit(0);
        }
        waitpid(parent, NULL, 0);
    }
    close(ends[0]);
    close(ends[1]);
}

static void leave_family(void) {
    pid_t parent = fork();
    if (parent < 0) exit(1);
    if (parent == 0) {
        if (fork() == 0) {
            signal(SIGTERM, SIG_IGN);
            for (;;) pause();
        }
        _exit(0);
    }
    waitpid(parent, NULL, 0);
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (strcmp(what, "serve") == 0 && count == 4) return serve(atoi(words[2]), words[3]);
    if (strcmp(what, "eat") == 0) eat();
    if (strcmp(what, "exit") == 0 && count == 4) {
        say(words[3]);
        return atoi(words[2]);
    }
    if (strcmp(what, "same") == 0 && count == 4) {
        char content[4096] = {0};
        return read_file(words[2], content, sizeof content) != 0 || strncmp(content, words[3], strlen(words[3])) != 0;
    }
    if (strcmp(what, "orphans") == 0 && count == 4) {
        signal(SIGTERM, ended);
        for (int at = 0; at < atoi(words[2]); at++) orphan_many(atoi(words[3]));
        say("done");
    }
    if (strcmp(what, "family") == 0) leave_family();
    signal(SIGTERM, strcmp(what, "deaf") == 0 ? SIG_IGN : ended);
    say("up");
    for (;;) pause();
}
