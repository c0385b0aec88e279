/* First steps of the lab guest: mounts, modules, options, network, and the last step, power off. See guestwork.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/lab/guest/guestwork.h"

#define COMMAND_LINE_MAX 4096
#define MODULE_LIST "/modules/order" /* written by mkinitramfs: file names, dependencies first */

void guest_boot_mounts(void)
{
	int console;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mkdir("/tmp", 01777);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/console", O_RDWR | O_NOCTTY);
	if (console >= 0) {
		dup2(console, 0);
		dup2(console, 1);
		dup2(console, 2);
		if (console > 2)
			close(console);
	}
	setenv("PATH", "/bin", 1);
	setenv("HOME", "/", 1);
}

static void module_load(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/modules/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV))
		guest_say("MODULE BAD %s: %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void guest_boot_modules(void)
{
	FILE *list = fopen(MODULE_LIST, "re");
	char name[128];

	if (!list)
		return;
	while (fgets(name, sizeof(name), list)) {
		name[strcspn(name, "\n")] = '\0';
		module_load(name);
	}
	fclose(list);
}

static bool option_text(const char *line, const char *key, char *ret_value, size_t size)
{
	const char *found = strstr(line, key);
	size_t length;

	if (!found)
		return false;
	found += strlen(key);
	length = strcspn(found, " \n");
	if (length >= size)
		length = size - 1;
	memcpy(ret_value, found, length);
	ret_value[length] = '\0';
	return true;
}

static unsigned option_number(const char *line, const char *key, unsigned minimum, unsigned otherwise)
{
	char text[32];
	unsigned long value;

	if (!option_text(line, key, text, sizeof(text)))
		return otherwise;
	value = strtoul(text, NULL, 10);
	return value < minimum ? minimum : (unsigned)value;
}

void guest_options_read(struct guest_options *ret_options)
{
	struct guest_options options = {.observer = "10.80.0.254", .disk = "vda"};
	char line[COMMAND_LINE_MAX] = "";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		close(fd);
	line[length > 0 ? length : 0] = '\0';
	option_text(line, "gw.ip=", options.address, sizeof(options.address));
	option_text(line, "gw.observer=", options.observer, sizeof(options.observer));
	option_text(line, "gw.disk=", options.disk, sizeof(options.disk));
	options.observer_port = option_number(line, "gw.port=", 1, 7900);
	options.memory_mb = option_number(line, "gw.mb=", 1, 16);
	options.rate_mb = option_number(line, "gw.rate=", 0, 1);
	options.tick_ms = option_number(line, "gw.tick_ms=", 1, 10);
	options.disk_ms = option_number(line, "gw.disk_ms=", 1, 100);
	options.listen_port = option_number(line, "gw.listen=", 0, 0);
	*ret_options = options;
}

static int net_flags_add(int fd, const char *name)
{
	struct ifreq request = {0};

	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -errno;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

/* Bring eth0 up with `address`/24; -ENODEV while there is no NIC, -EINVAL without an address. */
int guest_net_raise(const char *address)
{
	struct ifreq request = {.ifr_name = "eth0"};
	struct sockaddr_in *socket_address = (struct sockaddr_in *)&request.ifr_addr;
	int fd, result = 0;

	if (inet_pton(AF_INET, address, &socket_address->sin_addr) != 1)
		return -EINVAL;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	net_flags_add(fd, "lo");
	socket_address->sin_family = AF_INET;
	if (ioctl(fd, SIOCSIFADDR, &request) < 0)
		result = -errno;
	inet_pton(AF_INET, "255.255.255.0", &socket_address->sin_addr);
	if (result == 0 && ioctl(fd, SIOCSIFNETMASK, &request) < 0)
		result = -errno;
	if (result == 0)
		result = net_flags_add(fd, "eth0");
	close(fd);
	return result;
}

void guest_power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

void guest_power_reboot(void)
{
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
