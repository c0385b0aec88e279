/* xl.cfg: the domain's name and kind, sizes, processors, boot and end. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xlcfg_reader.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

#define MIB (1024ull * 1024)

static bool is_hvm(const struct xlcfg_reader *r)
{
	return r->spec->type == GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM;
}

static int fail_at_key(struct xlcfg_reader *r, const char *key, const char *text)
{
	return xlcfg__fail_at(&xlcfg__find(r, key)->pos, r->err, "%s", text);
}

static int read_text(struct xlcfg_reader *r, const char *key, char **field)
{
	const char *value = NULL;
	int rc = xlcfg__read_string(r, key, &value);

	if (rc == 0 && value != NULL)
		pb_set_string(field, value);
	return rc;
}

/* type, or the older builder; xl's default is pv. */
static int read_type(struct xlcfg_reader *r)
{
	static const char *const types[] = {"hvm", "pv", "pvh"}; /* in the order of DomainType */
	static const char *const builders[] = {"hvm", "generic", "linux"};
	int type = -1, builder = -1;
	int rc = xlcfg__read_word(r, "type", types, ARRAY_SIZE(types), &type);

	if (rc == 0)
		rc = xlcfg__read_word(r, "builder", builders, ARRAY_SIZE(builders), &builder);
	if (rc < 0)
		return rc;
	if (builder >= 0) {
		int meant = builder == 0 ? GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM : GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV;
		if (type >= 0 && type != meant)
			return xlcfg__fail_at(&xlcfg__find(r, "builder")->pos, r->err,
					      "builder \"%s\" contradicts type \"%s\"; remove 'builder'",
					      builders[builder], types[type]);
		xlcfg__warn(r, &xlcfg__find(r, "builder")->pos, "'builder' is outdated; write type=\"%s\"", types[meant]);
		type = meant;
	}
	r->spec->type = type >= 0 ? (Gantry__DomainType)type : GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV;
	return 0;
}

int xlcfg__read_identity(struct xlcfg_reader *r)
{
	const char *uuid = NULL;
	int rc = read_text(r, "name", &r->spec->name);

	if (rc == 0 && r->spec->name[0] == '\0')
		return err_set_status(r->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				      "%s: the domain has no name; add a line like name = \"web1\"", r->file.sources[0]);
	if (rc == 0)
		rc = xlcfg__read_string(r, "uuid", &uuid);
	if (rc == 0 && uuid != NULL) {
		pb_set_string(&r->spec->uuid, uuid);
		for (char *p = r->spec->uuid; *p != '\0'; p++)
			if (*p >= 'A' && *p <= 'F')
				*p = (char)(*p - 'A' + 'a');
	}
	return rc < 0 ? rc : read_type(r);
}

int xlcfg__read_sizes(struct xlcfg_reader *r)
{
	const int64_t mib_max = (int64_t)(LIMIT_DOMAIN_MEMORY_BYTES / MIB);
	int64_t memory = 0, max_memory = 0, vcpus = 0, max_vcpus = 0;
	int rc = xlcfg__read_number(r, "memory", 1, mib_max, &memory);

	if (rc == 0)
		rc = xlcfg__read_number(r, "maxmem", 1, mib_max, &max_memory);
	if (rc == 0)
		rc = xlcfg__read_number(r, "vcpus", 1, LIMIT_DOMAIN_VCPUS, &vcpus);
	if (rc == 0)
		rc = xlcfg__read_number(r, "maxvcpus", 1, LIMIT_DOMAIN_VCPUS, &max_vcpus);
	if (rc < 0)
		return rc;
	if (max_memory != 0 && max_memory < memory)
		return xlcfg__fail_at(&xlcfg__find(r, "maxmem")->pos, r->err,
				      "maxmem (%" PRId64 " MiB) is less than memory (%" PRId64 " MiB)", max_memory, memory);
	if (max_vcpus != 0 && max_vcpus < vcpus)
		return xlcfg__fail_at(&xlcfg__find(r, "maxvcpus")->pos, r->err,
				      "maxvcpus (%" PRId64 ") is less than vcpus (%" PRId64 ")", max_vcpus, vcpus);
	r->spec->memory_bytes = (uint64_t)(memory ? memory : max_memory) * MIB;
	r->spec->max_memory_bytes = (uint64_t)(max_memory ? max_memory : memory) * MIB;
	r->spec->vcpus = vcpus ? (uint32_t)vcpus : 1;
	r->spec->max_vcpus = max_vcpus ? (uint32_t)max_vcpus : r->spec->vcpus;
	return 0;
}

/* N or N-M at *p. */
static bool skip_range(const char **p)
{
	char *end;

	if (**p < '0' || **p > '9')
		return false;
	unsigned long first = strtoul(*p, &end, 10), last = first;
	if (*end == '-') {
		if (end[1] < '0' || end[1] > '9')
			return false;
		last = strtoul(end + 1, &end, 10);
	}
	*p = end;
	return first <= last && last < 65536;
}

/* [^][node:|nodes:](all|N[-M]), split on commas. NULL, or what is wrong. */
static const char *cpus_mistake(const char *p)
{
	while (*p != '\0') {
		while (*p == ' ' || *p == '\t' || *p == ',')
			p++;
		if (*p == '\0')
			break;
		bool not = *p == '^';
		p += not;
		if (strncmp(p, "nodes:", 6) == 0)
			p += 6;
		else if (strncmp(p, "node:", 5) == 0)
			p += 5;
		if (strncmp(p, "all", 3) == 0) {
			if (not)
				return "'^all' would leave no processor";
			p += 3;
		} else if (!skip_range(&p)) {
			return "not of the form [^][node:|nodes:](all|N[-M])";
		}
		while (*p == ' ' || *p == '\t')
			p++;
		if (*p != ',' && *p != '\0')
			return "not of the form [^][node:|nodes:](all|N[-M])";
	}
	return NULL;
}

static void string_append(char ***array, size_t *n, const char *text)
{
	*array = mem_realloc(*array, (*n + 1) * sizeof(**array));
	(*array)[(*n)++] = str_dup(text);
}

/* One text pins all vCPUs; item i of a list pins vCPU i, and those without an item stay free. */
static int read_affinity(struct xlcfg_reader *r, const char *key, char ***array, size_t *n)
{
	const struct xlcfg_setting *setting = xlcfg__find(r, key);

	if (setting == NULL)
		return 0;
	for (size_t i = 0; i < setting->n_items; i++) {
		const struct xlcfg_item *item = &setting->items[i];
		const char *mistake = item->text ? cpus_mistake(item->text) : "a list inside the list";
		if (mistake != NULL)
			return xlcfg__fail_at(&item->pos, r->err, "'%s': '%.60s': %s", key, item->text ? item->text : "[",
					      mistake);
		if (i < r->spec->max_vcpus)
			string_append(array, n, item->text);
	}
	/* A list of one item must not be taken for the text that pins all. */
	if (setting->is_list && *n == 1 && r->spec->max_vcpus > 1)
		string_append(array, n, "all");
	return 0;
}

int xlcfg__read_cpus(struct xlcfg_reader *r)
{
	int64_t weight = 0, cap = 0;
	int rc = read_affinity(r, "cpus", &r->spec->cpus, &r->spec->n_cpus);

	if (rc == 0)
		rc = read_affinity(r, "cpus_soft", &r->spec->cpus_soft, &r->spec->n_cpus_soft);
	if (rc == 0)
		rc = xlcfg__read_number(r, "cpu_weight", 1, 65535, &weight);
	if (rc == 0)
		rc = xlcfg__read_number(r, "cap", 0, 100 * LIMIT_DOMAIN_VCPUS, &cap);
	if (rc < 0)
		return rc;
	r->spec->cpu_weight = (uint32_t)weight;
	r->spec->cap_percent = (uint32_t)cap;
	return 0;
}

/* cmdline replaces root and extra; without it they are joined. */
static int read_cmdline(struct xlcfg_reader *r)
{
	const char *cmdline = NULL, *root = NULL, *extra = NULL;
	int rc = xlcfg__read_string(r, "cmdline", &cmdline);

	if (rc == 0)
		rc = xlcfg__read_string(r, "root", &root);
	if (rc == 0)
		rc = xlcfg__read_string(r, "extra", &extra);
	if (rc < 0)
		return rc;
	if (cmdline != NULL && root != NULL)
		xlcfg__warn(r, &xlcfg__find(r, "root")->pos, "'root' is ignored, because 'cmdline' is set");
	if (cmdline != NULL && extra != NULL)
		xlcfg__warn(r, &xlcfg__find(r, "extra")->pos, "'extra' is ignored, because 'cmdline' is set");
	if (cmdline == NULL && root != NULL) {
		_cleanup_free_ char *joined = str_printf("root=%s%s%s", root, extra ? " " : "", extra ? extra : "");
		pb_set_string(&r->spec->cmdline, joined);
	} else if (cmdline != NULL || extra != NULL) {
		pb_set_string(&r->spec->cmdline, cmdline != NULL ? cmdline : extra);
	}
	if (r->spec->kernel[0] == '\0' && r->spec->cmdline[0] != '\0')
		xlcfg__warn(r, &xlcfg__find(r, cmdline ? "cmdline" : root ? "root" : "extra")->pos,
			    "the kernel's command line has no effect without 'kernel'");
	return 0;
}

static int read_firmware(struct xlcfg_reader *r)
{
	static const struct {
		const char *word, *meaning;
	} words[] = {{"bios", "bios"}, {"seabios", "bios"}, {"uefi", "uefi"}, {"ovmf", "uefi"}};
	const char *key = xlcfg__find(r, "firmware") ? "firmware" : "bios", *value = NULL, *order = NULL;
	int rc = xlcfg__read_string(r, key, &value);

	if (rc == 0)
		rc = xlcfg__read_string(r, "boot", &order);
	if (rc < 0 || !is_hvm(r))
		return rc;
	if (order != NULL && (order[0] == '\0' || order[strspn(order, "cdn")] != '\0'))
		return fail_at_key(r, "boot", "'boot' has to be made of the letters c (disk), d (cdrom) and n (network)");
	if (order != NULL)
		pb_set_string(&r->spec->boot_order, order);
	if (value == NULL)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(words[i].word, value) == 0)
			pb_set_string(&r->spec->firmware, words[i].meaning);
	if (value[0] == '/')
		pb_set_string(&r->spec->firmware, value);
	if (r->spec->firmware[0] == '\0')
		return xlcfg__fail_at(&xlcfg__find(r, key)->pos, r->err,
				      "'%s' is '%.60s', but has to be bios, seabios, uefi, ovmf or an absolute path", key,
				      value);
	return 0;
}

int xlcfg__read_boot(struct xlcfg_reader *r)
{
	int rc = read_text(r, "kernel", &r->spec->kernel);

	if (rc == 0)
		rc = read_text(r, "ramdisk", &r->spec->ramdisk);
	if (rc == 0)
		rc = read_text(r, "bootloader", &r->spec->bootloader);
	if (rc == 0)
		rc = read_cmdline(r);
	if (rc == 0)
		rc = read_firmware(r);
	if (rc < 0)
		return rc;
	if (r->spec->ramdisk[0] != '\0' && r->spec->kernel[0] == '\0')
		return fail_at_key(r, "ramdisk", "'ramdisk' needs 'kernel'");
	if (r->spec->bootloader[0] != '\0' && r->spec->kernel[0] == '\0')
		xlcfg__warn(r, &xlcfg__find(r, "bootloader")->pos,
			    "'bootloader' is not run: the domain boots from the loader on its first disk");
	if (!is_hvm(r) && r->spec->kernel[0] == '\0' && r->spec->bootloader[0] == '\0')
		return err_set_status(r->err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				      "%s: a %s domain needs 'kernel' or 'bootloader'; to boot a whole PC from its disk write "
				      "type = \"hvm\"",
				      r->file.sources[0],
				      r->spec->type == GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_PV ? "pv" : "pvh");
	return 0;
}

int xlcfg__read_lifecycle(struct xlcfg_reader *r)
{
	/* In the order of LifecycleAction, which begins with "default". */
	static const char *const actions[] = {"destroy", "restart", "rename-restart", "preserve", "coredump-destroy",
					      "coredump-restart", "soft-reset"};
	const struct {
		const char *key;
		Gantry__LifecycleAction *field;
	} events[] = {{"on_poweroff", &r->spec->on_poweroff},
		      {"on_reboot", &r->spec->on_reboot},
		      {"on_crash", &r->spec->on_crash},
		      {"on_watchdog", &r->spec->on_watchdog},
		      {"on_soft_reset", &r->spec->on_soft_reset}};

	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		int action = -1;
		int rc = xlcfg__read_word(r, events[i].key, actions, ARRAY_SIZE(actions), &action);
		if (rc < 0)
			return rc;
		if (action >= 0)
			*events[i].field = (Gantry__LifecycleAction)(action + 1);
	}
	return 0;
}

/* The clock, migration, and our own gantry_ keys. */
int xlcfg__read_machine(struct xlcfg_reader *r)
{
	static const char *const accels[] = {"auto", "kvm", "tcg"};
	bool localtime = false, nomigrate = false;
	int64_t offset = 0;
	int accel = -1;
	int rc = xlcfg__read_bool(r, "localtime", &localtime);

	if (rc == 0)
		rc = xlcfg__read_bool(r, "nomigrate", &nomigrate);
	if (rc == 0)
		rc = xlcfg__read_number(r, "rtc_timeoffset", -2000000000, 2000000000, &offset);
	if (rc == 0)
		rc = xlcfg__read_word(r, "gantry_accel", accels, ARRAY_SIZE(accels), &accel);
	if (rc == 0)
		rc = read_text(r, "gantry_machine", &r->spec->machine);
	if (rc == 0)
		rc = read_text(r, "gantry_cpu", &r->spec->cpu_model);
	if (rc < 0)
		return rc;
	r->spec->localtime = localtime;
	r->spec->nomigrate = nomigrate;
	r->spec->rtc_offset_s = (int32_t)offset;
	if (accel >= 0)
		pb_set_string(&r->spec->accel, accels[accel]);
	return 0;
}
