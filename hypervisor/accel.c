#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hypervisor/accel.h"
#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/paths.h"
#include "lib/subprocess.h"

#define ACCEL_VERSION_TIMEOUT_MS 10000
#define ACCEL_GUEST_TIMEOUT_MS 8000 /* a guest that works needs well under a second, most of it the BIOS */
#define ACCEL_CACHE PATH_RUN "/accel"
#define ACCEL_CACHE_BYTES_MAX 512
#define ACCEL_DISK PATH_RUN "/accel-probe.img"
#define ACCEL_EXIT_CODE 0x2a
#define ACCEL_EXIT_STATUS (ACCEL_EXIT_CODE << 1 | 1) /* what isa-debug-exit makes of the code */

/* The guest: mov al, ACCEL_EXIT_CODE; out 0xf4, al; hlt; jmp to the hlt. */
static const unsigned char guest_code[] = {0xb0, ACCEL_EXIT_CODE, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd};

struct probe {
	uv_loop_t *loop;
	char *binary;
	char wanted[8];
	accel_cb cb;
	void *data;
	struct accel_info info;
};

int accel_version_parse(const char *line, uint32_t *ret, char *ret_text, size_t size)
{
	unsigned int major, minor, micro;
	const char *at = strstr(line, " version ");

	if (!at || sscanf(at, " version %u.%u.%u", &major, &minor, &micro) != 3 || major > 255 || minor > 255 || micro > 255)
		return -EINVAL;
	*ret = major << 16 | minor << 8 | micro;
	snprintf(ret_text, size, "%u.%u.%u", major, minor, micro);
	return 0;
}

static void probe_end(struct probe *p, int rc, const struct err *err)
{
	p->cb(p->data, rc, rc < 0 ? NULL : &p->info, err);
	free(p->binary);
	free(p);
}

static void choose(struct probe *p, bool kvm_works, const char *why)
{
	struct err err = {0};
	int rc = 0;

	snprintf(p->info.accel, sizeof(p->info.accel), "%s", kvm_works ? "kvm" : "tcg");
	snprintf(p->info.why, sizeof(p->info.why), "%s", why);
	if (!kvm_works && !strcmp(p->wanted, "kvm"))
		rc = err_set(&err, ENODEV, "accel kvm does not work on this host: %s; set 'accel: tcg' or 'auto' in %s", why, PATH_HOST_CONFIG);
	probe_end(p, rc, &err);
}

/* ---- the verdict of this boot: "VERSION kvm|tcg why" ---- */

static bool cache_read(struct probe *p)
{
	char version[32], accel[8];
	struct buf text = {0};
	bool found = false;
	int used = 0;

	if (atomic_file_read(ACCEL_CACHE, ACCEL_CACHE_BYTES_MAX, &text, NULL) == 0 &&
	    sscanf(buf_str(&text), "%31s %7s %n", version, accel, &used) == 2 && used && !strcmp(version, p->info.qemu_version_text)) {
		char *why = (char *)text.data + used;

		why[strcspn(why, "\n")] = '\0';
		found = true;
		choose(p, !strcmp(accel, "kvm"), why);
	}
	buf_free(&text);
	return found;
}

static void cache_write(const struct probe *p, bool kvm_works, const char *why)
{
	struct buf text = {0};

	buf_printf(&text, "%s %s %s\n", p->info.qemu_version_text, kvm_works ? "kvm" : "tcg", why);
	/* Without the cache the next start of the agent only probes again. */
	(void)atomic_file_write(ACCEL_CACHE, text.data, text.len, 0644, NULL);
	buf_free(&text);
}

/* ---- the guest ---- */

static void on_guest_ended(void *data, const struct subprocess_result *result)
{
	struct probe *p = data;
	char why[160];
	bool works = result->rc == 0 && result->exit_status == ACCEL_EXIT_STATUS;

	unlink(ACCEL_DISK);
	if (works)
		snprintf(why, sizeof(why), "a guest ran on /dev/kvm");
	else if (result->rc == -ETIMEDOUT)
		snprintf(why, sizeof(why), "/dev/kvm is there but a guest on it hangs (%d ms)", ACCEL_GUEST_TIMEOUT_MS);
	else if (result->rc < 0)
		snprintf(why, sizeof(why), "the test guest could not be run: %s", strerror(-result->rc));
	else
		snprintf(why, sizeof(why), "a guest on /dev/kvm failed: %.*s", (int)strcspn(result->err_out, "\n"),
			 *result->err_out ? result->err_out : "no message");
	cache_write(p, works, why);
	choose(p, works, why);
}

static int guest_run(struct probe *p, struct err *err)
{
	const char *const argv[] = {p->binary, "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "16", "-nodefaults", "-no-user-config",
				    "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-blockdev",
				    "driver=file,node-name=d,filename=" ACCEL_DISK, "-device", "ide-hd,drive=d,bus=ide.0", NULL};
	const struct subprocess_options options = {.argv = argv, .timeout_ms = ACCEL_GUEST_TIMEOUT_MS};
	unsigned char sector[512] = {0};
	int rc;

	memcpy(sector, guest_code, sizeof(guest_code));
	sector[510] = 0x55;
	sector[511] = 0xaa;
	rc = path_make_dirs(PATH_RUN, 0755, err);
	if (rc == 0)
		rc = atomic_file_write(ACCEL_DISK, sector, sizeof(sector), 0600, err);
	if (rc == 0)
		rc = subprocess_run(p->loop, &options, on_guest_ended, p, NULL, err);
	return rc;
}

static void on_version(void *data, const struct subprocess_result *result)
{
	struct probe *p = data;
	struct err err = {0};
	int rc;

	if (result->rc < 0 || result->exit_status != 0) {
		rc = err_set(&err, ENOEXEC, "%s --version failed: %s", p->binary, result->rc < 0 ? strerror(-result->rc) : result->err_out);
		probe_end(p, rc, &err);
		return;
	}
	if (accel_version_parse(result->out, &p->info.qemu_version, p->info.qemu_version_text, sizeof(p->info.qemu_version_text)) < 0) {
		rc = err_set(&err, EINVAL, "%s --version says no version: %.100s", p->binary, result->out);
		probe_end(p, rc, &err);
		return;
	}
	if (!strcmp(p->wanted, "tcg")) {
		choose(p, false, "asked for");
	} else if (access("/dev/kvm", F_OK) < 0) {
		choose(p, false, "there is no /dev/kvm");
	} else if (!cache_read(p)) {
		rc = guest_run(p, &err);
		if (rc < 0)
			probe_end(p, rc, &err);
	}
}

int accel_probe(uv_loop_t *loop, const char *binary, const char *wanted, accel_cb cb, void *data, struct err *err)
{
	const char *const argv[] = {binary, "--version", NULL};
	const struct subprocess_options options = {.argv = argv, .timeout_ms = ACCEL_VERSION_TIMEOUT_MS};
	struct probe *p;
	int rc;

	if (strcmp(wanted, "auto") && strcmp(wanted, "kvm") && strcmp(wanted, "tcg"))
		return err_set(err, EINVAL, "accel '%s' is unknown: use auto, kvm or tcg", wanted);
	p = mem_alloc(sizeof(*p));
	p->loop = loop;
	p->binary = str_dup(binary);
	snprintf(p->wanted, sizeof(p->wanted), "%s", wanted);
	p->cb = cb;
	p->data = data;
	rc = subprocess_run(loop, &options, on_version, p, NULL, err);
	if (rc < 0) {
		free(p->binary);
		free(p);
	}
	return rc;
}
