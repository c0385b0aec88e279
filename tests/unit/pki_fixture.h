/* Two clusters' CAs and hosts of them, for the tests of TLS and of the CA. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/atomic_file.h"
#include "proto/tls.h"

#define UUID_ONE "11111111-1111-1111-1111-111111111111"
#define UUID_TWO "22222222-2222-2222-2222-222222222222"

/* Made once: keys are slow under the sanitizers. */
static struct pki {
	char dir[32];
	struct buf ca1, ca1_key, ca2, ca2_key;
	struct tls_context *a, *b;      /* hosts of cluster one */
	struct tls_context *stranger;   /* host of another cluster, of another CA */
	struct tls_context *moved;      /* signed by cluster one's CA, but for another cluster */
	char fingerprint1[65], fingerprint2[65];
} pki;

static inline const char *put(const char *name, const struct buf *content)
{
	static char path[3][64];
	static int turn;
	char *p = path[turn++ % 3];

	snprintf(p, 64, "%s/%s", pki.dir, name);
	assert_int_equal(atomic_file_write(p, content->data, content->len, 0600, NULL), 0);
	return p;
}

static inline struct tls_context *host_context(const struct buf *ca, const struct buf *ca_key, const char *host, const char *uuid)
{
	struct buf csr = {0}, key = {0}, cert = {0};
	struct tls_context *tls = NULL;
	struct err err = {0};

	assert_int_equal(pki_make_request(host, &csr, &key, &err), 0);
	assert_int_equal(pki_sign(ca, ca_key, &csr, host, uuid, &cert, &err), 0);
	if (tls_context_load(put("ca.crt", ca), put("host.crt", &cert), put("host.key", &key), &tls, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(tls->cluster_uuid, uuid);
	buf_free(&csr);
	buf_free(&key);
	buf_free(&cert);
	return tls;
}

static inline int pki_set_up(void **state)
{
	strcpy(pki.dir, "pki-test-XXXXXX");
	assert_non_null(mkdtemp(pki.dir));
	assert_int_equal(pki_make_ca("one", UUID_ONE, &pki.ca1, &pki.ca1_key, NULL), 0);
	assert_int_equal(pki_make_ca("two", UUID_TWO, &pki.ca2, &pki.ca2_key, NULL), 0);
	assert_int_equal(pki_fingerprint(&pki.ca1, pki.fingerprint1, NULL), 0);
	assert_int_equal(pki_fingerprint(&pki.ca2, pki.fingerprint2, NULL), 0);
	pki.a = host_context(&pki.ca1, &pki.ca1_key, "hostA", UUID_ONE);
	pki.b = host_context(&pki.ca1, &pki.ca1_key, "hostB", UUID_ONE);
	pki.moved = host_context(&pki.ca1, &pki.ca1_key, "hostM", UUID_TWO);
	pki.stranger = host_context(&pki.ca2, &pki.ca2_key, "hostA", UUID_TWO);
	return 0;
}

static inline int pki_tear_down(void **state)
{
	static const char *const names[] = {"ca.crt", "host.crt", "host.key"};
	char path[64];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", pki.dir, names[i]);
		unlink(path);
	}
	rmdir(pki.dir);
	buf_free(&pki.ca1);
	buf_free(&pki.ca1_key);
	buf_free(&pki.ca2);
	buf_free(&pki.ca2_key);
	tls_context_free(pki.a);
	tls_context_free(pki.b);
	tls_context_free(pki.stranger);
	tls_context_free(pki.moved);
	return 0;
}
