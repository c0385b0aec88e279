/* Peers for the QMP client's tests: a fake QEMU in a child process, with faults on demand, and a real one. Header only:
 * each test program has its own. */
#pragma once

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum fake_fault {
	FAKE_NONE,
	FAKE_DRIP,        /* each byte on its own */
	FAKE_SILENT,      /* accepts and never greets */
	FAKE_GARBAGE,     /* greets with no JSON */
	FAKE_UNKNOWN_ID,  /* answers what nobody asked */
	FAKE_HALF_REPLY,  /* dies within an answer */
	FAKE_ENDLESS,     /* a line without end */
	FAKE_NO_ANSWER,   /* reads commands after the negotiation and answers none */
	FAKE_TWO_GREETINGS,
	FAKE_LATE_SOCKET, /* listens after 200 ms */
};

static inline void fake_say(int fd, enum fake_fault fault, const char *text)
{
	size_t len = strlen(text), step = fault == FAKE_DRIP ? 1 : len;

	for (size_t i = 0; i < len; i += step)
		if (write(fd, text + i, step) < 0)
			_exit(1);
}

static inline void fake_answer(int fd, enum fake_fault fault, const char *line, bool got_fd)
{
	json_t *in = json_loads(line, 0, NULL);
	const char *command = json_string_value(json_object_get(in, "execute"));
	long long id = json_integer_value(json_object_get(in, "id"));
	char out[512];

	if (!command)
		command = json_string_value(json_object_get(in, "exec-oob"));
	if (!in || !command)
		_exit(2);
	if (fault == FAKE_UNKNOWN_ID && strcmp(command, "qmp_capabilities"))
		id += 1000;
	if (fault == FAKE_NO_ANSWER && strcmp(command, "qmp_capabilities"))
		goto out;
	if (!strcmp(command, "query-version"))
		snprintf(out, sizeof(out), "{\"return\": {\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 0}}, \"id\": %lld}\r\n", id);
	else if (!strcmp(command, "cont"))
		snprintf(out, sizeof(out), "{\"event\": \"RESUME\", \"timestamp\": {}}\r\n{\"return\": {}, \"id\": %lld}\r\n", id);
	else if (!strcmp(command, "getfd") && !got_fd)
		snprintf(out, sizeof(out), "{\"id\": %lld, \"error\": {\"class\": \"GenericError\", \"desc\": \"No file descriptor supplied via SCM_RIGHTS\"}}\r\n", id);
	else if (!strcmp(command, "qmp_capabilities") || !strcmp(command, "getfd") || !strcmp(command, "migrate-pause"))
		snprintf(out, sizeof(out), "{\"return\": {}, \"id\": %lld}\r\n", id);
	else
		snprintf(out, sizeof(out), "{\"id\": %lld, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command %s has not been found\"}}\r\n", id, command);
	if (fault == FAKE_HALF_REPLY && strcmp(command, "qmp_capabilities")) {
		out[10] = '\0';
		fake_say(fd, fault, out);
		_exit(0);
	}
	fake_say(fd, fault, out);
	if (!strcmp(command, "quit"))
		_exit(0);
out:
	json_decref(in);
}

static inline void fake_serve(int fd, enum fake_fault fault)
{
	static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n";
	static char in[65536];
	size_t have = 0;
	char *end;

	if (fault == FAKE_GARBAGE)
		fake_say(fd, fault, "SSH-2.0-OpenSSH_9.2\r\n");
	else if (fault != FAKE_SILENT)
		fake_say(fd, fault, greeting);
	if (fault == FAKE_TWO_GREETINGS)
		fake_say(fd, fault, greeting);
	for (;;) {
		char control[64];
		struct iovec iov = {in + have, sizeof(in) - have - 1};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(fd, &msg, 0);

		if (n <= 0)
			_exit(0);
		have += (size_t)n;
		in[have] = '\0';
		while (fault == FAKE_ENDLESS)
			if (write(fd, memset(in, 'x', sizeof(in)), sizeof(in)) < 0)
				_exit(0);
		while ((end = strchr(in, '\n'))) {
			*end = '\0';
			fake_answer(fd, fault, in, CMSG_FIRSTHDR(&msg) != NULL);
			have -= (size_t)(end + 1 - in);
			memmove(in, end + 1, have + 1);
		}
	}
}

/* The pid of the fake; it dies with the test. */
static inline pid_t fake_start(const char *path, enum fake_fault fault)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener, fd;
	pid_t pid;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_DFL);
	if (fault == FAKE_LATE_SOCKET)
		usleep(200000);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
		_exit(3);
	fd = accept(listener, NULL, NULL);
	fake_serve(fd, fault);
	_exit(0);
}

static inline pid_t real_start(const char *path)
{
	char chardev[200];
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(chardev, sizeof(chardev), "socket,id=q,path=%s,server=on,wait=off", path);
	execlp("qemu-system-x86_64", "qemu-system-x86_64", "-machine", "none", "-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-S",
	       "-chardev", chardev, "-mon", "chardev=q,mode=control", NULL);
	_exit(127);
}

static inline void peer_stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
