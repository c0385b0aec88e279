/* Helpers for messages, buffers and error texts: the pure base. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

static Gantry__Host *host_new(const char *name, uint32_t node_id)
{
	Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);

	pb_set_string(&h->name, name);
	h->node_id = node_id;
	return h;
}

static void test_strings_and_bytes(void **state)
{
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);

	assert_string_equal(job->reason, "");
	pb_set_string(&job->reason, "because");
	pb_set_string(&job->reason, job->reason + 2);
	assert_string_equal(job->reason, "cause");
	pb_set_string(&job->reason, NULL);
	assert_string_equal(job->reason, "");
	pb_set_string(&job->reason, "");
	pb_set_bytes(&job->token, "\0\1\2", 3);
	assert_int_equal(job->token.len, 3);
	pb_set_bytes(&job->token, job->token.data + 1, 2);
	assert_memory_equal(job->token.data, "\1\2", 2);
	pb_set_bytes(&job->token, NULL, 0);
	assert_null(job->token.data);
	gantry__job__free_unpacked(job, NULL);
}

static void test_arrays(void **state)
{
	Gantry__ClusterModel *m = PB_NEW(Gantry__ClusterModel, gantry__cluster_model__init);

	PB_APPEND(m, hosts, host_new("b", 2));
	PB_APPEND(m, hosts, host_new("d", 4));
	PB_INSERT(m, hosts, 0, host_new("a", 1));
	PB_INSERT(m, hosts, 2, host_new("c", 3));
	assert_int_equal(m->n_hosts, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(m->hosts[i]->node_id, i + 1);
	PB_REMOVE(m, hosts, 1);
	assert_int_equal(m->n_hosts, 3);
	assert_int_equal(m->hosts[1]->node_id, 3);
	PB_REMOVE(m, hosts, 2);
	PB_REMOVE(m, hosts, 0);
	PB_REMOVE(m, hosts, 0);
	assert_int_equal(m->n_hosts, 0);
	assert_null(m->hosts);
	pb_u32_append(&m->voters, &m->n_voters, 7);
	pb_u32_append(&m->voters, &m->n_voters, 9);
	assert_int_equal(m->voters[1], 9);
	gantry__cluster_model__free_unpacked(m, NULL);
}

static void test_clone_and_equal(void **state)
{
	Gantry__Host *a = host_new("a", 1), *b;
	Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);

	b = pb_clone(a);
	assert_ptr_not_equal(a->name, b->name);
	assert_true(pb_equal(a, b));
	b->incarnation++;
	assert_false(pb_equal(a, b));
	assert_false(pb_equal(a, d));
	assert_false(pb_equal(a, NULL));
	assert_true(pb_equal(NULL, NULL));
	gantry__host__free_unpacked(a, NULL);
	gantry__host__free_unpacked(b, NULL);

	/* An empty message packs to no bytes at all. */
	Gantry__Domain *e = pb_clone(d);
	assert_true(pb_equal(d, e));
	gantry__domain__free_unpacked(d, NULL);
	gantry__domain__free_unpacked(e, NULL);
}

static void test_clone_copies_every_kind_of_field(void **state)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init), *copy;

	c->time_ms = UINT64_MAX;
	c->body_case = GANTRY__COMMAND__BODY_MIGRATE_START;
	c->migrate_start = PB_NEW(Gantry__CmdMigrateStart, gantry__cmd_migrate_start__init);
	pb_set_bytes(&c->migrate_start->token, "\0\1\2\3", 4);
	copy = pb_clone(c);
	assert_true(pb_equal(c, copy));
	assert_ptr_not_equal(c->migrate_start->token.data, copy->migrate_start->token.data);
	gantry__command__free_unpacked(c, NULL);
	assert_memory_equal(copy->migrate_start->token.data, "\0\1\2\3", 4);
	gantry__command__free_unpacked(copy, NULL);

	Gantry__DomainSpec *s = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init), *t;
	s->rtc_offset_s = -7;
	pb_string_append(&s->cpus, &s->n_cpus, "");
	pb_string_append(&s->cpus, &s->n_cpus, "1-3");
	PB_APPEND(s, disks, PB_NEW(Gantry__Disk, gantry__disk__init));
	pb_set_string(&s->disks[0]->vdev, "xvda");
	t = pb_clone(s);
	gantry__domain_spec__free_unpacked(s, NULL);
	assert_int_equal(t->rtc_offset_s, -7);
	assert_string_equal(t->cpus[0], "");
	assert_string_equal(t->cpus[1], "1-3");
	assert_string_equal(t->disks[0]->vdev, "xvda");
	gantry__domain_spec__free_unpacked(t, NULL);
}

/* Found by the fuzzer: protobuf-c reads field number 0 in a long form and writes it in one that it refuses. */
static void test_unknown_fields_end_here(void **state)
{
	static const uint8_t strange[] = {0x0a, 0x0c, 0x0a, 4, 'w', 'e', 'b', '1', 0x80, 0x00, 0x0e, 0x98, 0x3f, 0x01};
	Gantry__CmdDomainCreate *c = gantry__cmd_domain_create__unpack(NULL, sizeof(strange), strange), *again;
	struct buf out = {0};

	assert_non_null(c);
	assert_int_equal(c->spec->base.n_unknown_fields, 2);
	pb_pack(c, &out);
	again = gantry__cmd_domain_create__unpack(NULL, out.len, out.data);
	assert_non_null(again);
	assert_int_equal(again->spec->base.n_unknown_fields, 0);
	assert_string_equal(again->spec->name, "web1");
	gantry__cmd_domain_create__free_unpacked(again, NULL);
	again = pb_clone(c);
	assert_int_equal(again->spec->base.n_unknown_fields, 0);
	gantry__cmd_domain_create__free_unpacked(again, NULL);
	gantry__cmd_domain_create__free_unpacked(c, NULL);
	buf_free(&out);
}

static void test_pack_appends(void **state)
{
	Gantry__Host *a = host_new("a", 1), *b;
	struct buf out = {0};

	buf_append(&out, "head", 4);
	pb_pack(a, &out);
	assert_memory_equal(out.data, "head", 4);
	b = gantry__host__unpack(NULL, out.len - 4, out.data + 4);
	assert_non_null(b);
	assert_string_equal(b->name, "a");
	gantry__host__free_unpacked(a, NULL);
	gantry__host__free_unpacked(b, NULL);
	buf_free(&out);
}

static void test_buf(void **state)
{
	struct buf b = {0};

	assert_string_equal(buf_str(&b), "");
	buf_printf(&b, "%s-%d", "abc", 42);
	buf_append(&b, NULL, 0);
	assert_string_equal(buf_str(&b), "abc-42");
	buf_consume(&b, 4);
	assert_string_equal(buf_str(&b), "42");
	buf_consume(&b, 2);
	assert_int_equal(b.len, 0);
	for (unsigned i = 0; i < 10000; i++)
		buf_append(&b, &(uint8_t){(uint8_t)i}, 1);
	assert_int_equal(b.len, 10000);
	assert_int_equal(b.data[9999], 9999 & 0xff);
	buf_free(&b);
	buf_free(&b);
	char *s = str_printf("%05d", 42);
	assert_string_equal(s, "00042");
	free(s);
	assert_null(str_dup(NULL));
}

static void test_err_text(void **state)
{
	struct err err = {0};
	char big[2 * ERR_TEXT_MAX];

	assert_int_equal(err_set(&err, ENOENT, "volume '%s': no pool", "web1"), -ENOENT);
	assert_int_equal(err_prefix(&err, -ENOENT, "create %d", 3), -ENOENT);
	assert_string_equal(err.text, "create 3: volume 'web1': no pool");
	/* The old text as an argument. */
	err_set(&err, EIO, "<%s>", err.text);
	assert_string_equal(err.text, "<create 3: volume 'web1': no pool>");
	assert_int_equal(err_set(NULL, EIO, "x"), -EIO);
	assert_int_equal(err_prefix(NULL, -EIO, "x"), -EIO);
	memset(big, 'x', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	err_set(&err, EIO, "%s", big);
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
	err_prefix(&err, -EIO, "%s", big);
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
}

static void test_err_status_agrees_with_proto(void **state)
{
	struct err err = {0};

	assert_int_equal(err_status(NULL, 0), GANTRY__STATUS__STATUS_OK);
	assert_int_equal(err_status(NULL, -ENOENT), GANTRY__STATUS__STATUS_NO_SUCH);
	assert_int_equal(err_status(NULL, -EEXIST), GANTRY__STATUS__STATUS_EXISTS);
	assert_int_equal(err_status(NULL, -EINVAL), GANTRY__STATUS__STATUS_USAGE);
	assert_int_equal(err_status(NULL, -EPROTO), GANTRY__STATUS__STATUS_BAD_DATA);
	assert_int_equal(err_status(NULL, -EACCES), GANTRY__STATUS__STATUS_PERMISSION);
	assert_int_equal(err_status(NULL, -EAGAIN), GANTRY__STATUS__STATUS_RETRY);
	assert_int_equal(err_status(NULL, -ETIMEDOUT), GANTRY__STATUS__STATUS_TIMEOUT);
	assert_int_equal(err_status(NULL, -ECONNREFUSED), GANTRY__STATUS__STATUS_UNAVAILABLE);
	assert_int_equal(err_status(NULL, -EIO), GANTRY__STATUS__STATUS_FAILED);
	err_set_status(&err, EIO, GANTRY__STATUS__STATUS_NO_QUORUM, "no quorum");
	assert_int_equal(err_status(&err, -EIO), GANTRY__STATUS__STATUS_NO_QUORUM);
	/* A later error does not inherit the status. */
	err_set(&err, ENOENT, "gone");
	assert_int_equal(err_status(&err, -ENOENT), GANTRY__STATUS__STATUS_NO_SUCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strings_and_bytes),
		cmocka_unit_test(test_arrays),
		cmocka_unit_test(test_clone_and_equal),
		cmocka_unit_test(test_clone_copies_every_kind_of_field),
		cmocka_unit_test(test_unknown_fields_end_here),
		cmocka_unit_test(test_pack_appends),
		cmocka_unit_test(test_buf),
		cmocka_unit_test(test_err_text),
		cmocka_unit_test(test_err_status_agrees_with_proto),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
