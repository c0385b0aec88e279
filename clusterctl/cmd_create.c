/* create FILE: xl.cfg -> specification -> the cluster. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "clusterctl/cmd.h"
#include "clusterctl/job_wait.h"
#include "hypervisor/spec.h"
#include "hypervisor/xlcfg.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/hostconf.h"
#include "lib/limits.h"
#include "lib/paths.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

/* xl takes kernels relative to where it is called; the agent is elsewhere and wants the whole path. */
static int make_absolute(struct invocation *inv, char **path)
{
	if ((*path)[0] == '\0' || (*path)[0] == '/')
		return 0;
	_cleanup_free_ char *here = getcwd(NULL, 0);
	if (here == NULL)
		return err_set(&inv->err, errno, "the current folder is not known: %s", strerror(errno));
	_cleanup_free_ char *whole = str_printf("%s/%s", here, *path);
	pb_set_string(path, whole);
	return 0;
}

/* A domain that is bound for this host needs its files here; any other host's are looked at by its agent. */
static int check_local_files(struct invocation *inv, const Gantry__DomainSpec *spec, const char *host)
{
	const struct {
		const char *key, *path;
	} files[] = {{"kernel", spec->kernel}, {"ramdisk", spec->ramdisk}};
	struct hostconf conf = {0};
	int rc = 0;

	if (host == NULL || hostconf_read(PATH_HOST_CONFIG, &conf, NULL) < 0)
		return 0;
	for (size_t i = 0; strcmp(conf.name, host) == 0 && rc == 0 && i < ARRAY_SIZE(files); i++)
		if (files[i].path[0] != '\0' && access(files[i].path, R_OK) < 0)
			rc = err_set_status(&inv->err, EINVAL, STATUS(BAD_DATA), "domain '%s': %s %s: %s", spec->name, files[i].key,
					    files[i].path, strerror(errno));
	hostconf_free(&conf);
	return rc;
}

static int read_spec(struct invocation *inv, Gantry__DomainSpec **ret)
{
	struct xlcfg_warnings warnings = {0};
	Gantry__DomainSpec *spec = NULL;
	struct buf text = {0};
	uint8_t random[64];
	int rc = cmd_read_file(inv->args[0], LIMIT_XLCFG_BYTES, &text, &inv->err);

	if (rc == 0)
		rc = xlcfg_parse(inv->args[0], (const char *)text.data, text.len, inv->args + 1, inv->n_args - 1, &spec, &warnings,
				 &inv->err);
	buf_free(&text);
	for (size_t i = 0; i < warnings.n; i++)
		fprintf(stderr, "clusterctl: warning: %s\n", warnings.lines[i]);
	xlcfg_warnings_free(&warnings);
	if (rc < 0)
		return rc;
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		rc = err_set(&inv->err, EIO, "the system gives no random numbers for the uuid");
	if (rc == 0)
		rc = make_absolute(inv, &spec->kernel);
	if (rc == 0)
		rc = make_absolute(inv, &spec->ramdisk);
	if (rc == 0) {
		spec_complete(spec, random);
		rc = spec_check(spec, &inv->err);
	}
	if (rc < 0) {
		gantry__domain_spec__free_unpacked(spec, NULL);
		return rc;
	}
	*ret = spec;
	return 0;
}

static int propose_create(struct invocation *inv, Gantry__DomainSpec *spec, const char *host)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdDomainCreate body = GANTRY__CMD_DOMAIN_CREATE__INIT;
	bool start = invocation_option(inv, "no-start") == NULL;
	_cleanup_free_ char *done = start ? NULL : str_printf("%s is defined", spec->name);

	body.spec = spec;
	body.start = start;
	body.no_ha = invocation_option(inv, "no-ha") != NULL;
	if (host != NULL)
		body.host = (char *)host;
	command.body_case = GANTRY__COMMAND__BODY_DOMAIN_CREATE;
	command.domain_create = &body;
	return job_run(inv, &command, done);
}

int cmd_create(struct invocation *inv)
{
	const char *host = invocation_option(inv, "host");
	Gantry__DomainSpec *spec = NULL;
	int rc = read_spec(inv, &spec);

	if (rc < 0)
		return rc;
	rc = check_local_files(inv, spec, host);
	if (rc == 0 && invocation_option(inv, "dry-run") != NULL)
		rc = output_object(inv->format, pbjson_from_message(&spec->base, false), &inv->err);
	else if (rc == 0)
		rc = propose_create(inv, spec, host);
	gantry__domain_spec__free_unpacked(spec, NULL);
	return rc;
}
