/* What a host looks at to tell whether its guest lives: the guest agent's port, a TCP port, the watchdog. See guestwork.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lab/guest/guestwork.h"

#define AGENT_PORT_NAME "org.qemu.guest_agent.0"
#define AGENT_LINE_BYTES 4096

static bool file_is(const char *path, const char *wanted)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[length > 0 ? length : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return strcmp(text, wanted) == 0;
}

/* ---- the guest agent: QEMU's protocol, as far as it takes to be found alive ---- */

/* No udev makes /dev/virtio-ports here. */
static int agent_port_open(void)
{
	DIR *folder = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	char path[320];
	int fd = -1;

	while (folder && fd < 0 && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		if (!file_is(path, AGENT_PORT_NAME))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (folder)
		closedir(folder);
	return fd;
}

static void agent_answer(int fd, const char *line)
{
	const char *id = strstr(line, "\"id\":");
	char answer[128];
	int length;

	if (strstr(line, "\"guest-sync-delimited\"") && id)
		length = snprintf(answer, sizeof(answer), "\xff{\"return\": %lld}\n", strtoll(id + strlen("\"id\":"), NULL, 10));
	else if (strstr(line, "\"guest-sync\"") && id)
		length = snprintf(answer, sizeof(answer), "{\"return\": %lld}\n", strtoll(id + strlen("\"id\":"), NULL, 10));
	else if (strstr(line, "\"guest-ping\""))
		length = snprintf(answer, sizeof(answer), "{\"return\": {}}\n");
	else
		length = snprintf(answer, sizeof(answer), "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"not known\"}}\n");
	(void)!write(fd, answer, (size_t)length);
}

static void agent_serve(struct guest *guest, int fd)
{
	char line[AGENT_LINE_BYTES];
	size_t used = 0;
	unsigned char byte;

	for (;;) {
		ssize_t length = read(fd, &byte, 1);

		if (length < 0 && errno != EINTR)
			return;
		if (length <= 0) { /* nobody is connected at the host's end */
			guest_sleep_ms(100);
			continue;
		}
		if (byte == 0xff) {
			used = 0;
		} else if (byte != '\n') {
			used += used < sizeof(line) - 1;
			line[used - 1] = (char)byte;
		} else {
			line[used] = '\0';
			if (!atomic_load(&guest->agent_hangs))
				agent_answer(fd, line);
			used = 0;
		}
	}
}

void *guest_agent_run(void *argument)
{
	for (;;) {
		int fd = agent_port_open();

		if (fd >= 0) {
			agent_serve(argument, fd);
			close(fd);
		}
		guest_sleep_ms(1000);
	}
	return NULL;
}

/* ---- a port that says that the service is there ---- */

void *guest_listen_run(void *argument)
{
	const struct guest *guest = argument;
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)guest->options.listen_port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0) {
		guest_say("LISTEN BAD %s", strerror(errno));
		return NULL;
	}
	guest_say("LISTEN port=%u", guest->options.listen_port);
	for (;;) {
		int peer = accept(fd, NULL, NULL);

		if (peer >= 0)
			close(peer);
		else
			guest_sleep_ms(100);
	}
	return NULL;
}

/* ---- the watchdog ----
 * Driven from here, through sysfs: Debian's cloud kernel has no i6300esb module. Registers: Intel 6300ESB I/O Controller Hub
 * Datasheet, chapter "Watchdog Timer": two stages, each of `preload` times 2^15 PCI clocks (about 1 ms); the second one fires. */

#define ESB_VENDOR "0x8086"
#define ESB_DEVICE "0x25ab"
#define ESB_CONFIG 0x60 /* in configuration space, 16 bits */
#define ESB_LOCK 0x68	/* in configuration space, 8 bits */
#define ESB_LOCK_ENABLE 0x02
#define ESB_TIMER1 0x00 /* in memory, from here on */
#define ESB_TIMER2 0x04
#define ESB_RELOAD 0x0c
#define ESB_RELOAD_NOW 0x100
#define ESB_STAGE_MS 1000
#define ESB_FEED_MS 300

static bool esb_find(char *ret_folder, size_t size)
{
	DIR *folder = opendir("/sys/bus/pci/devices");
	struct dirent *entry;
	bool found = false;
	char path[320];

	while (folder && !found && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vendor", entry->d_name);
		found = file_is(path, ESB_VENDOR);
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/device", entry->d_name);
		found = found && file_is(path, ESB_DEVICE);
		snprintf(ret_folder, size, "/sys/bus/pci/devices/%s", entry->d_name);
	}
	if (folder)
		closedir(folder);
	return found;
}

static int esb_write(const char *folder, const char *name, const void *data, size_t length, off_t at)
{
	char path[384];
	ssize_t written;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	written = pwrite(fd, data, length, at);
	close(fd);
	return written == (ssize_t)length ? 0 : -EIO;
}

/* Each write to a register must be preceded by these two. */
static void esb_unlock(volatile uint8_t *registers)
{
	*(volatile uint16_t *)(registers + ESB_RELOAD) = 0x80;
	*(volatile uint16_t *)(registers + ESB_RELOAD) = 0x86;
}

static volatile uint8_t *esb_start(const char *folder)
{
	const uint16_t config = 0x0003; /* no interrupt at the first stage, the reset is not disabled, 1 kHz */
	const uint8_t lock = ESB_LOCK_ENABLE;
	volatile uint8_t *registers;
	char path[384];
	int fd;

	snprintf(path, sizeof(path), "%s/resource0", folder);
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0 || esb_write(folder, "enable", "1", 1, 0) < 0 || esb_write(folder, "config", &config, sizeof(config), ESB_CONFIG) < 0)
		return NULL;
	registers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (registers == MAP_FAILED)
		return NULL;
	esb_unlock(registers);
	*(volatile uint32_t *)(registers + ESB_TIMER1) = ESB_STAGE_MS;
	esb_unlock(registers);
	*(volatile uint32_t *)(registers + ESB_TIMER2) = ESB_STAGE_MS;
	return esb_write(folder, "config", &lock, sizeof(lock), ESB_LOCK) < 0 ? NULL : registers;
}

static void *watchdog_run(void *argument)
{
	struct guest *guest = argument;
	volatile uint8_t *registers = NULL;
	char folder[320];

	if (esb_find(folder, sizeof(folder)))
		registers = esb_start(folder);
	guest_say(registers ? "WATCHDOG started" : "WATCHDOG BAD none, or it cannot be driven");
	while (registers) {
		guest_sleep_ms(ESB_FEED_MS);
		if (!atomic_load(&guest->watchdog_fed))
			continue;
		esb_unlock(registers);
		*(volatile uint16_t *)(registers + ESB_RELOAD) = ESB_RELOAD_NOW;
	}
	return NULL;
}

void guest_watchdog_start(struct guest *guest)
{
	pthread_t thread;

	if (!atomic_exchange(&guest->watchdog_fed, true))
		pthread_create(&thread, NULL, watchdog_run, guest);
}
