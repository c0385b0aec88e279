#include <errno.h>
#include <string.h>

#include "hypervisor/qmp_parser.h"
#include "lib/limits.h"

void qmp_parser_init(struct qmp_parser *p, size_t max_line)
{
	*p = (struct qmp_parser){.max_line = max_line ? max_line : LIMIT_QMP_LINE_BYTES};
}

void qmp_parser_free(struct qmp_parser *p)
{
	buf_free(&p->in);
	p->scanned = 0;
}

void qmp_parser_feed(struct qmp_parser *p, const void *data, size_t len)
{
	buf_append(&p->in, data, len);
}

void qmp_message_clear(struct qmp_message *m)
{
	json_decref(m->root);
	*m = (struct qmp_message){0};
}

static int classify_error(struct qmp_message *m, json_t *error, struct err *err)
{
	m->kind = QMP_MESSAGE_ERROR;
	m->name = json_string_value(json_object_get(error, "class"));
	m->desc = json_string_value(json_object_get(error, "desc"));
	if (!m->name || !m->desc)
		return err_set(err, EPROTO, "QEMU sent an error without class or description");
	return 0;
}

static int classify(struct qmp_message *m, struct err *err)
{
	json_t *part;

	part = json_object_get(m->root, "id");
	if (json_is_integer(part) && json_integer_value(part) >= 0) {
		m->has_id = true;
		m->id = (uint64_t)json_integer_value(part);
	}
	if ((part = json_object_get(m->root, "event"))) {
		m->kind = QMP_MESSAGE_EVENT;
		m->name = json_string_value(part);
		m->body = json_object_get(m->root, "data");
		return m->name ? 0 : err_set(err, EPROTO, "QEMU sent an event whose name is no string");
	}
	if ((part = json_object_get(m->root, "return"))) {
		m->kind = QMP_MESSAGE_RETURN;
		m->body = part;
		return 0;
	}
	if ((part = json_object_get(m->root, "error")))
		return classify_error(m, part, err);
	if ((part = json_object_get(m->root, "QMP"))) {
		m->kind = QMP_MESSAGE_GREETING;
		m->body = part;
		return 0;
	}
	return err_set(err, EPROTO, "QEMU sent a message that is neither greeting, event, return nor error");
}

static int decode(const char *line, size_t len, struct qmp_message *ret, struct err *err)
{
	struct qmp_message m = {0};
	json_error_t bad;
	int rc;

	m.root = json_loadb(line, len, JSON_ALLOW_NUL, &bad);
	if (!m.root)
		return err_set(err, EPROTO, "QEMU sent a line that is no JSON: %s (byte %d)", bad.text, bad.position);
	if (!json_is_object(m.root))
		rc = err_set(err, EPROTO, "QEMU sent a line that is no JSON object");
	else
		rc = classify(&m, err);
	if (rc < 0) {
		qmp_message_clear(&m);
		return rc;
	}
	*ret = m;
	return 1;
}

static bool is_blank(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (line[i] != '\r' && line[i] != ' ')
			return false;
	return true;
}

int qmp_parser_next(struct qmp_parser *p, struct qmp_message *ret, struct err *err)
{
	const char *start, *end;
	size_t len;
	int rc;

	for (;;) {
		start = (const char *)p->in.data;
		end = p->in.len > p->scanned ? memchr(start + p->scanned, '\n', p->in.len - p->scanned) : NULL;
		len = end ? (size_t)(end - start) : p->in.len;
		if (len > p->max_line)
			return err_set(err, EFBIG, "QEMU sent a line of more than %zu bytes", p->max_line);
		if (!end) {
			p->scanned = p->in.len;
			return 0;
		}
		rc = is_blank(start, len) ? 0 : decode(start, len, ret, err);
		buf_consume(&p->in, len + 1);
		p->scanned = 0;
		if (rc)
			return rc;
	}
}
