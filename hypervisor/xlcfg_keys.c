/* The keys of xl.cfg(5), and what each one is to us. */
#include <errno.h>
#include <string.h>

#include "hypervisor/xlcfg_reader.h"
#include "lib/cleanup.h"

enum key_class {
	KEY_READ,      /* one of the readers takes it */
	KEY_HVM,       /* taken for hvm, without effect for others */
	KEY_DEFAULT,   /* QEMU does the one thing anyhow (`fixed`); another value has no effect */
	KEY_NO_EFFECT, /* known to xl, without effect here */
};

struct key {
	const char *name;
	enum key_class class;
	const char *fixed; /* KEY_DEFAULT: what the value amounts to here */
};

static const struct key keys[] = {
	{"name", KEY_READ}, {"uuid", KEY_READ}, {"type", KEY_READ}, {"builder", KEY_READ},
	{"memory", KEY_READ}, {"maxmem", KEY_READ}, {"vcpus", KEY_READ}, {"maxvcpus", KEY_READ},
	{"cpus", KEY_READ}, {"cpus_soft", KEY_READ}, {"cpu_weight", KEY_READ}, {"cap", KEY_READ},
	{"kernel", KEY_READ}, {"ramdisk", KEY_READ}, {"cmdline", KEY_READ}, {"root", KEY_READ}, {"extra", KEY_READ},
	{"bootloader", KEY_READ}, {"disk", KEY_READ}, {"vif", KEY_READ}, {"vfb", KEY_READ},
	{"on_poweroff", KEY_READ}, {"on_reboot", KEY_READ}, {"on_crash", KEY_READ}, {"on_watchdog", KEY_READ},
	{"on_soft_reset", KEY_READ}, {"localtime", KEY_READ}, {"rtc_timeoffset", KEY_READ}, {"nomigrate", KEY_READ},
	{"vnc", KEY_READ}, {"vnclisten", KEY_READ}, {"vncdisplay", KEY_READ}, {"vncunused", KEY_READ},
	{"vncpasswd", KEY_READ}, {"keymap", KEY_READ}, {"vga", KEY_HVM}, {"stdvga", KEY_HVM}, {"videoram", KEY_HVM},
	{"boot", KEY_HVM}, {"firmware", KEY_HVM}, {"bios", KEY_HVM},
	{"gantry_accel", KEY_READ}, {"gantry_machine", KEY_READ}, {"gantry_cpu", KEY_READ},
	{"acpi", KEY_DEFAULT, "1"}, {"acpi_s3", KEY_DEFAULT, "0"}, {"acpi_s4", KEY_DEFAULT, "0"},
	{"apic", KEY_DEFAULT, "1"}, {"pae", KEY_DEFAULT, "1"}, {"hpet", KEY_DEFAULT, "1"}, {"hap", KEY_DEFAULT, "1"},
	{"nx", KEY_DEFAULT, "1"}, {"serial", KEY_DEFAULT, "pty"}, {"sdl", KEY_DEFAULT, "0"},
	{"opengl", KEY_DEFAULT, "0"}, {"nestedhvm", KEY_DEFAULT, "0"}, {"viridian", KEY_DEFAULT, "0"},
	{"usb", KEY_DEFAULT, "0"}, {"nographic", KEY_DEFAULT, "0"}, {"spice", KEY_DEFAULT, "0"},
	{"xen_platform_pci", KEY_DEFAULT, "0"}, {"gfx_passthru", KEY_DEFAULT, "0"}, {"pool", KEY_DEFAULT, "Pool-0"},
	{"device_model_version", KEY_DEFAULT, "qemu-xen"}, {"device_model_stubdomain_override", KEY_DEFAULT, "0"},
	{"tsc_mode", KEY_DEFAULT, "default"}, {"shadow_memory", KEY_NO_EFFECT}, {"display", KEY_NO_EFFECT},
	{"xauthority", KEY_NO_EFFECT}, {"pci", KEY_NO_EFFECT}, {"usbdevice", KEY_NO_EFFECT}, {"usbdev", KEY_NO_EFFECT},
	{"usbctrl", KEY_NO_EFFECT}, {"usbversion", KEY_NO_EFFECT}, {"soundhw", KEY_NO_EFFECT},
	{"device_model_args", KEY_NO_EFFECT}, {"device_model_args_pv", KEY_NO_EFFECT},
	{"device_model_args_hvm", KEY_NO_EFFECT}, {"device_model_override", KEY_NO_EFFECT},
	{"device_model_user", KEY_NO_EFFECT}, {"bootloader_args", KEY_NO_EFFECT}, {"bootloader_restrict", KEY_NO_EFFECT},
	{"bios_path_override", KEY_NO_EFFECT}, {"hdtype", KEY_NO_EFFECT}, {"cpuid", KEY_NO_EFFECT},
	{"altp2m", KEY_NO_EFFECT}, {"altp2mhvm", KEY_NO_EFFECT}, {"arch", KEY_NO_EFFECT}, {"argo", KEY_NO_EFFECT},
	{"assist", KEY_NO_EFFECT}, {"blkdev_start", KEY_NO_EFFECT}, {"claim_mode", KEY_NO_EFFECT},
	{"channel", KEY_NO_EFFECT}, {"console_id", KEY_NO_EFFECT}, {"dm_restrict", KEY_NO_EFFECT},
	{"driver_domain", KEY_NO_EFFECT}, {"device_tree", KEY_NO_EFFECT}, {"dtdev", KEY_NO_EFFECT},
	{"e820_host", KEY_NO_EFFECT}, {"event_channels", KEY_NO_EFFECT}, {"gic_version", KEY_NO_EFFECT},
	{"grant_usage", KEY_NO_EFFECT}, {"init_seclabel", KEY_NO_EFFECT}, {"invtsc", KEY_NO_EFFECT},
	{"ioports", KEY_NO_EFFECT}, {"iomem", KEY_NO_EFFECT}, {"irqs", KEY_NO_EFFECT},
	{"max_event_channels", KEY_NO_EFFECT}, {"max_grant_frames", KEY_NO_EFFECT}, {"max_grant_version", KEY_NO_EFFECT},
	{"max_maptrack_frames", KEY_NO_EFFECT}, {"mca_caps", KEY_NO_EFFECT}, {"mmio_hole", KEY_NO_EFFECT},
	{"ms_vm_genid", KEY_NO_EFFECT}, {"msr_relaxed", KEY_NO_EFFECT}, {"nic", KEY_NO_EFFECT},
	{"p9", KEY_NO_EFFECT}, {"passthrough", KEY_NO_EFFECT}, {"pci_msitranslate", KEY_NO_EFFECT},
	{"pci_permissive", KEY_NO_EFFECT}, {"pci_power_mgmt", KEY_NO_EFFECT}, {"pci_seize", KEY_NO_EFFECT},
	{"pvcalls", KEY_NO_EFFECT}, {"pvh", KEY_NO_EFFECT}, {"pvshim", KEY_NO_EFFECT}, {"pvshim_cmdline", KEY_NO_EFFECT},
	{"pvshim_extra", KEY_NO_EFFECT}, {"pvshim_path", KEY_NO_EFFECT}, {"rdm", KEY_NO_EFFECT},
	{"rdm_mem_boundary", KEY_NO_EFFECT}, {"seclabel", KEY_NO_EFFECT}, {"smbios_firmware", KEY_NO_EFFECT},
	{"acpi_firmware", KEY_NO_EFFECT}, {"acpi_laptop_slate", KEY_NO_EFFECT}, {"smbios", KEY_NO_EFFECT},
	{"spiceagent_mouse", KEY_NO_EFFECT}, {"spicehost", KEY_NO_EFFECT}, {"spiceport", KEY_NO_EFFECT},
	{"spicetls_port", KEY_NO_EFFECT}, {"spicedisable_ticketing", KEY_NO_EFFECT}, {"spicepasswd", KEY_NO_EFFECT},
	{"spicevdagent", KEY_NO_EFFECT}, {"spice_clipboard_sharing", KEY_NO_EFFECT},
	{"spiceusbredirection", KEY_NO_EFFECT}, {"spice_image_compression", KEY_NO_EFFECT},
	{"spice_streaming_video", KEY_NO_EFFECT}, {"stubdomain_memory", KEY_NO_EFFECT},
	{"stubdomain_cmdline", KEY_NO_EFFECT}, {"stubdomain_kernel", KEY_NO_EFFECT},
	{"stubdomain_ramdisk", KEY_NO_EFFECT}, {"suppress_spurious_page_faults", KEY_NO_EFFECT},
	{"suspend_cancel", KEY_NO_EFFECT}, {"sve", KEY_NO_EFFECT}, {"tee", KEY_NO_EFFECT}, {"timer_mode", KEY_NO_EFFECT},
	{"timeoffset", KEY_NO_EFFECT}, {"trap_unmapped_accesses", KEY_NO_EFFECT}, {"tsc_native", KEY_NO_EFFECT},
	{"vdispl", KEY_NO_EFFECT}, {"vsnd", KEY_NO_EFFECT}, {"vkb_device", KEY_NO_EFFECT}, {"vkb", KEY_NO_EFFECT},
	{"virtio", KEY_NO_EFFECT}, {"vnuma", KEY_NO_EFFECT}, {"vmtrace_buf_kb", KEY_NO_EFFECT}, {"vpmu", KEY_NO_EFFECT},
	{"vpt_align", KEY_NO_EFFECT}, {"vscsi", KEY_NO_EFFECT}, {"vtpm", KEY_NO_EFFECT}, {"vuart", KEY_NO_EFFECT},
};

static const struct key *key_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

/* One letter too many, too few, wrong, or two swapped: how far two words are apart, if that is all. */
static bool is_one_slip(const char *a, const char *b)
{
	size_t n_a = strlen(a), n_b = strlen(b), i = 0;

	while (a[i] != '\0' && a[i] == b[i])
		i++;
	if (n_a == n_b) {
		if (a[i] == '\0')
			return false;
		if (strcmp(a + i + 1, b + i + 1) == 0)
			return true;
		return a[i] == b[i + 1] && a[i + 1] == b[i] && strcmp(a + i + 2, b + i + 2) == 0;
	}
	if (n_a + 1 == n_b)
		return strcmp(a + i, b + i + 1) == 0;
	if (n_b + 1 == n_a)
		return strcmp(a + i + 1, b + i) == 0;
	return false;
}

static void warn_unknown(struct xlcfg_reader *r, const struct xlcfg_setting *setting)
{
	if (strcmp(setting->key, "gantry_ha") == 0) {
		xlcfg__warn(r, &setting->pos, "key 'gantry_ha' has no effect in a file; use 'create --no-ha'");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strlen(setting->key) > 2 && is_one_slip(setting->key, keys[i].name)) {
			xlcfg__warn(r, &setting->pos, "unknown key '%.60s' is ignored; did you mean '%s'?", setting->key,
				    keys[i].name);
			return;
		}
	}
	xlcfg__warn(r, &setting->pos, "unknown key '%.60s' is ignored", setting->key);
}

/* Is every value of the setting what it amounts to anyhow? Numbers are compared as numbers. */
static bool is_fixed(const struct xlcfg_setting *setting, const char *fixed)
{
	for (size_t i = 0; i < setting->n_items; i++) {
		int64_t have, want;
		const char *text = setting->items[i].text;
		if (text == NULL)
			return false;
		if (xlcfg__is_number(text, &have) && xlcfg__is_number(fixed, &want) ? (have != 0) != (want != 0)
										     : strcmp(text, fixed) != 0)
			return false;
	}
	return true;
}

int xlcfg__check_keys(struct xlcfg_reader *r)
{
	for (size_t i = 0; i < r->file.n_settings; i++) {
		const struct xlcfg_setting *setting = &r->file.settings[i];
		const struct key *key = key_find(setting->key);

		if (key == NULL)
			warn_unknown(r, setting);
		else if (key->class == KEY_NO_EFFECT)
			xlcfg__warn(r, &setting->pos, "key '%s' has no effect on this platform", key->name);
		else if (key->class == KEY_DEFAULT && !is_fixed(setting, key->fixed))
			xlcfg__warn(r, &setting->pos, "key '%s' has no effect on this platform: it is always %s",
				    key->name, key->fixed);
		else if (key->class == KEY_HVM && r->spec->type != GANTRY__DOMAIN_TYPE__DOMAIN_TYPE_HVM)
			xlcfg__warn(r, &setting->pos, "key '%s' has an effect only with type=\"hvm\"", key->name);
	}
	return 0;
}
