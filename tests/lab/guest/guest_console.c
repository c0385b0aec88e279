/* The lab guest's serial console and its power button. See guestwork.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lab/guest/guestwork.h"

#define LINE_MAX_BYTES 1024
#define INPUTS_MAX 16
#define PROMPT "gw> "

/* One line on the console, in one write so that lines of several threads do not mix. */
void guest_say(const char *format, ...)
{
	char line[LINE_MAX_BYTES];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	if (length < 0)
		return;
	if (length > (int)sizeof(line) - 2)
		length = (int)sizeof(line) - 2;
	line[length++] = '\n';
	(void)!write(1, line, (size_t)length);
}

static void shell_run(char *line)
{
	char *argv[] = {"sh", "-c", line, NULL};
	pid_t child = fork();
	int status;

	if (child == 0) {
		execv("/bin/busybox", argv);
		_exit(127);
	}
	/* Orphans come to PID 1, so every child is collected here. */
	while (child > 0) {
		pid_t ended = waitpid(-1, &status, 0);

		if (ended == child || (ended < 0 && errno != EINTR))
			break;
	}
}

static void crash(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, "c", 1);
	guest_say("CRASH BAD the kernel did not");
}

static void status_say(struct guest *guest)
{
	guest_say("STATUS boot=%016llx uptime_ms=%llu ticks=%llu pages=%zu rewritten=%llu verify_errors=%llu disk=%s "
		  "disk_records=%llu disk_errors=%llu net=%s",
		  (unsigned long long)guest->boot_id, (unsigned long long)(guest_clock_ns(CLOCK_BOOTTIME) / 1000000),
		  atomic_load(&guest->ticks), guest_memory_pages(), atomic_load(&guest->pages_rewritten),
		  atomic_load(&guest->verify_errors), atomic_load(&guest->disk_found) ? guest->options.disk : "none",
		  atomic_load(&guest->disk_records), atomic_load(&guest->disk_errors),
		  atomic_load(&guest->net_up) ? guest->options.address : "none");
}

static void verify_say(struct guest *guest)
{
	size_t bad = guest_memory_verify_all(guest);
	unsigned long long before = atomic_load(&guest->verify_errors);

	if (before == 0)
		guest_say("VERIFY ok pages=%zu", guest_memory_pages());
	else
		guest_say("VERIFY BAD pages=%zu bad=%zu errors=%llu", guest_memory_pages(), bad, before);
}

static void line_act(struct guest *guest, char *line)
{
	if (strcmp(line, "verify") == 0)
		verify_say(guest);
	else if (strcmp(line, "status") == 0)
		status_say(guest);
	else if (strcmp(line, "damage") == 0)
		guest_memory_damage();
	else if (strcmp(line, "poweroff") == 0)
		guest_power_off();
	else if (strcmp(line, "reboot") == 0)
		guest_power_reboot();
	else if (strcmp(line, "crash") == 0)
		crash();
	else if (strcmp(line, "hang-agent") == 0)
		atomic_store(&guest->agent_hangs, true);
	else if (strcmp(line, "watchdog-start") == 0)
		guest_watchdog_start(guest);
	else if (strcmp(line, "watchdog-stop-feeding") == 0)
		atomic_store(&guest->watchdog_fed, false);
	else if (line[0])
		shell_run(line);
}

void *guest_console_run(void *argument)
{
	char line[LINE_MAX_BYTES];

	for (;;) {
		(void)!write(1, PROMPT, sizeof(PROMPT) - 1);
		ssize_t length = read(0, line, sizeof(line) - 1);

		if (length <= 0) { /* no console at all, or it was hung up */
			guest_sleep_ms(1000);
			continue;
		}
		line[length] = '\0';
		line[strcspn(line, "\r\n")] = '\0';
		line_act(argument, line);
	}
	return NULL;
}

static int inputs_open(struct pollfd *inputs)
{
	DIR *folder = opendir("/dev/input");
	int count = 0;
	struct dirent *entry;

	if (!folder)
		return 0;
	while (count < INPUTS_MAX && (entry = readdir(folder))) {
		if (strncmp(entry->d_name, "event", 5) != 0)
			continue;
		inputs[count].fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		inputs[count].events = POLLIN;
		count += inputs[count].fd >= 0;
	}
	closedir(folder);
	return count;
}

/* ACPI's power button arrives as a key of an input device. */
void *guest_button_run(void *unused)
{
	struct pollfd inputs[INPUTS_MAX];
	int count = inputs_open(inputs);
	struct input_event event;

	while (count > 0 && poll(inputs, (nfds_t)count, -1) > 0)
		for (int i = 0; i < count; i++)
			while (read(inputs[i].fd, &event, sizeof(event)) == (ssize_t)sizeof(event))
				if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
					guest_say("POWER button");
					guest_power_off();
				}
	guest_say("POWER BAD no button");
	return NULL;
}
