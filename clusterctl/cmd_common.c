#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "lib/cleanup.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

int cmd_model(struct invocation *inv, bool events, Gantry__CtlModel **ret)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *answer = NULL;
	Gantry__CtlModelRequest body = GANTRY__CTL_MODEL_REQUEST__INIT;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	body.events = events;
	body.committed_only = inv->committed;
	request.body_case = GANTRY__CTL_MESSAGE__BODY_MODEL_REQUEST;
	request.model_request = &body;
	if (rc == 0)
		rc = ctl_call(c, &request, GANTRY__CTL_MESSAGE__BODY_MODEL, &answer, &inv->err);
	if (rc < 0)
		return rc;
	*ret = answer->model;
	answer->model = NULL;
	answer->body_case = GANTRY__CTL_MESSAGE__BODY__NOT_SET;
	gantry__ctl_message__free_unpacked(answer, NULL);
	if ((*ret)->model == NULL) {
		gantry__ctl_model__free_unpacked(*ret, NULL);
		*ret = NULL;
		return err_set_status(&inv->err, EREMOTEIO, STATUS(FAILED), "clusterd sent no model");
	}
	if (!(*ret)->quorate)
		fprintf(stderr, "clusterctl: warning: host %s has no quorum; this is what it knew last\n", (*ret)->host);
	return 0;
}

int cmd_ask_status(struct ctl_client *c, Gantry__CtlStatus **ret, struct err *err)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *answer = NULL;
	Gantry__CtlStatusRequest body = GANTRY__CTL_STATUS_REQUEST__INIT;

	request.body_case = GANTRY__CTL_MESSAGE__BODY_STATUS_REQUEST;
	request.status_request = &body;
	int rc = ctl_call(c, &request, GANTRY__CTL_MESSAGE__BODY_STATUS, &answer, err);
	if (rc < 0)
		return rc;
	*ret = answer->status;
	answer->body_case = GANTRY__CTL_MESSAGE__BODY__NOT_SET;
	answer->status = NULL;
	gantry__ctl_message__free_unpacked(answer, NULL);
	return 0;
}

static int split(const char *text, char mark, char **ret_left, char **ret_right)
{
	const char *at = strchr(text, mark);

	if (at == NULL || at == text || at[1] == '\0')
		return -EINVAL;
	*ret_left = str_printf("%.*s", (int)(at - text), text);
	*ret_right = str_dup(at + 1);
	return 0;
}

int cmd_split_volume(struct invocation *inv, const char *text, char **ret_pool, char **ret_name)
{
	if (strchr(text, '/') != strrchr(text, '/') || split(text, '/', ret_pool, ret_name) < 0)
		return err_set_status(&inv->err, EINVAL, STATUS(USAGE), "'%.60s' has to be POOL/NAME, such as vms/web1", text);
	return 0;
}

int cmd_split_pair(struct invocation *inv, const char *text, char **ret_key, char **ret_value)
{
	if (split(text, '=', ret_key, ret_value) < 0)
		return err_set_status(&inv->err, EINVAL, STATUS(USAGE), "'%.60s' has to be of the form key=value", text);
	return 0;
}

const Gantry__HostSoft *cmd_host_soft(const Gantry__CtlModel *m, uint32_t node_id)
{
	for (size_t i = 0; i < m->n_soft; i++)
		if (m->soft[i]->node_id == node_id)
			return m->soft[i];
	return NULL;
}

const Gantry__Host *cmd_host(const Gantry__CtlModel *m, const char *name)
{
	for (size_t i = 0; i < m->model->n_hosts; i++)
		if (strcmp(m->model->hosts[i]->name, name) == 0)
			return m->model->hosts[i];
	return NULL;
}

int cmd_host_named(struct invocation *inv, const Gantry__CtlModel *m, const Gantry__Host **ret)
{
	*ret = cmd_host(m, inv->args[0]);
	if (*ret != NULL)
		return 0;
	return err_set_status(&inv->err, ENOENT, GANTRY__STATUS__STATUS_NO_SUCH, "no host '%.60s'; see 'clusterctl host list'", inv->args[0]);
}

const Gantry__Domain *cmd_domain(const Gantry__CtlModel *m, const char *name)
{
	char id[16];

	for (size_t i = 0; i < m->model->n_domains; i++) {
		const Gantry__Domain *d = m->model->domains[i];
		snprintf(id, sizeof(id), "%u", d->id);
		if (strcmp(d->spec->name, name) == 0 || strcmp(d->spec->uuid, name) == 0 || strcmp(id, name) == 0)
			return d;
	}
	return NULL;
}

char *cmd_time(uint64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;
	char text[32];

	if (ms == 0 || localtime_r(&seconds, &tm) == NULL || strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm) == 0)
		return str_dup("-");
	return str_dup(text);
}

int cmd_read_file(const char *path, size_t max, struct buf *out, struct err *err)
{
	bool is_stdin = strcmp(path, "-") == 0;
	_cleanup_close_ int opened = is_stdin ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	int fd = is_stdin ? STDIN_FILENO : opened;

	if (fd < 0)
		return err_set_status(err, errno, STATUS(BAD_DATA), "%s cannot be read: %s", path, strerror(errno));
	for (;;) {
		ssize_t n = read(fd, buf_reserve(out, 65536), 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set_status(err, errno, STATUS(BAD_DATA), "%s cannot be read: %s", path, strerror(errno));
		if (n == 0)
			return 0;
		out->len += (size_t)n;
		if (out->len > max)
			return err_set_status(err, EFBIG, STATUS(BAD_DATA), "%s has more than %zu bytes", path, max);
	}
}
