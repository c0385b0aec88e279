#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "lib/limits.h"
#include "proto/tls.h"

enum {
	PKI_VALID_DAYS = 3650,
	PKI_CLOCK_SKEW_S = 24 * 3600, /* hosts' clocks may differ by so much when a certificate is new */
	PKI_SERIAL_BYTES = 16,
	PKI_PEM_MAX = 64 << 10,
};

static int pki__error(struct err *err, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return err_set(err, EIO, "%s: %s", what, reason ? reason : "OpenSSL gives no reason");
}

bool pki_host_name_ok(const char *host)
{
	size_t len = strlen(host);

	if (!len || len > LIMIT_HOST_NAME_CHARS || !isalnum((unsigned char)host[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)host[i]) && !strchr("-._", host[i]))
			return false;
	return true;
}

static BIO *pki__bio(const struct buf *pem)
{
	return pem->len && pem->len <= PKI_PEM_MAX ? BIO_new_mem_buf(pem->data, (int)pem->len) : NULL;
}

static X509 *pki__read_cert(const struct buf *pem)
{
	BIO *bio = pki__bio(pem);
	X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return cert;
}

static EVP_PKEY *pki__read_key(const struct buf *pem)
{
	BIO *bio = pki__bio(pem);
	/* An empty pass phrase: OpenSSL must never ask on the terminal. */
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;

	BIO_free(bio);
	return key;
}

static X509_REQ *pki__read_request(const struct buf *pem)
{
	BIO *bio = pki__bio(pem);
	X509_REQ *request = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return request;
}

/* Moves what was written into the memory BIO to out and frees the BIO. */
static int pki__take_bio(BIO *bio, int written, struct buf *out)
{
	char *data;
	long len;

	if (bio && written > 0) {
		len = BIO_get_mem_data(bio, &data);
		buf_append(out, data, (size_t)len);
	}
	BIO_free(bio);
	return bio && written > 0 ? 0 : -EIO;
}

static int pki__write_cert(X509 *cert, struct buf *out)
{
	BIO *bio = BIO_new(BIO_s_mem());

	return pki__take_bio(bio, bio ? PEM_write_bio_X509(bio, cert) : 0, out);
}

static int pki__write_key(EVP_PKEY *key, struct buf *out)
{
	BIO *bio = BIO_new(BIO_s_mem());

	return pki__take_bio(bio, bio ? PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) : 0, out);
}

static int pki__write_request(X509_REQ *request, struct buf *out)
{
	BIO *bio = BIO_new(BIO_s_mem());

	return pki__take_bio(bio, bio ? PEM_write_bio_X509_REQ(bio, request) : 0, out);
}

static bool pki__name_add(X509_NAME *name, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0) == 1;
}

static bool pki__extension_add(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok;
}

/* Version, a random serial number, the dates: what every certificate of ours has. */
static X509 *pki__cert_new(EVP_PKEY *key)
{
	unsigned char serial[PKI_SERIAL_BYTES];
	X509 *cert = X509_new();
	BIGNUM *bn = NULL;
	bool ok;

	ok = cert && RAND_bytes(serial, sizeof(serial)) == 1;
	if (ok) {
		serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and never 0 (RFC 5280, 4.1.2.2) */
		bn = BN_bin2bn(serial, sizeof(serial), NULL);
		ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) && X509_set_version(cert, X509_VERSION_3) &&
		     X509_gmtime_adj(X509_getm_notBefore(cert), -PKI_CLOCK_SKEW_S) &&
		     X509_time_adj_ex(X509_getm_notAfter(cert), PKI_VALID_DAYS, 0, NULL) && X509_set_pubkey(cert, key);
	}
	BN_free(bn);
	if (ok)
		return cert;
	X509_free(cert);
	return NULL;
}

static X509 *pki__build_ca(EVP_PKEY *key, const char *cluster_name, const char *cluster_uuid)
{
	X509 *cert = pki__cert_new(key);
	X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;

	if (cert && pki__name_add(name, "O", cluster_uuid) && pki__name_add(name, "CN", cluster_name) &&
	    X509_set_issuer_name(cert, name) &&
	    pki__extension_add(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
	    pki__extension_add(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	    pki__extension_add(cert, cert, NID_subject_key_identifier, "hash") && X509_sign(cert, key, EVP_sha256()) > 0)
		return cert;
	X509_free(cert);
	return NULL;
}

int pki_make_ca(const char *cluster_name, const char *cluster_uuid, struct buf *ret_cert, struct buf *ret_key, struct err *err)
{
	EVP_PKEY *key = NULL;
	X509 *cert = NULL;
	int rc = -EIO;

	if (!*cluster_name || strlen(cluster_name) > LIMIT_HOST_NAME_CHARS || !*cluster_uuid || strlen(cluster_uuid) > 64)
		return err_set(err, EINVAL, "cluster '%s': the name must have 1 to %d characters", cluster_name,
			       LIMIT_HOST_NAME_CHARS);
	key = EVP_EC_gen("P-256");
	cert = key ? pki__build_ca(key, cluster_name, cluster_uuid) : NULL;
	if (cert)
		rc = pki__write_key(key, ret_key) < 0 || pki__write_cert(cert, ret_cert) < 0 ? -EIO : 0;
	if (rc < 0)
		rc = pki__error(err, "cannot make the cluster's certificate authority");
	X509_free(cert);
	EVP_PKEY_free(key);
	return rc;
}

int pki_make_request(const char *host, struct buf *ret_csr, struct buf *ret_key, struct err *err)
{
	X509_REQ *request = NULL;
	EVP_PKEY *key = NULL;
	int rc = -EIO;

	if (!pki_host_name_ok(host))
		return err_set(err, EINVAL, "host name '%s': use 1 to %d letters, digits, '-', '.', '_'", host,
			       LIMIT_HOST_NAME_CHARS);
	key = EVP_EC_gen("P-256");
	request = X509_REQ_new();
	if (key && request && X509_REQ_set_version(request, X509_REQ_VERSION_1) &&
	    pki__name_add(X509_REQ_get_subject_name(request), "CN", host) && X509_REQ_set_pubkey(request, key) &&
	    X509_REQ_sign(request, key, EVP_sha256()) > 0)
		rc = pki__write_key(key, ret_key) < 0 || pki__write_request(request, ret_csr) < 0 ? -EIO : 0;
	if (rc < 0)
		rc = pki__error(err, "cannot make a certificate request");
	X509_REQ_free(request);
	EVP_PKEY_free(key);
	return rc;
}

/* The key of the request and nothing else of it: names and extensions are ours to say. */
static X509 *pki__build_host(X509 *ca, EVP_PKEY *ca_key, EVP_PKEY *host_key, const char *host, const char *cluster_uuid)
{
	X509 *cert = pki__cert_new(host_key);
	X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
	char san[LIMIT_HOST_NAME_CHARS + 8];

	snprintf(san, sizeof(san), "DNS:%s", host);
	if (cert && pki__name_add(name, "O", cluster_uuid) && pki__name_add(name, "CN", host) &&
	    X509_set_issuer_name(cert, X509_get_subject_name(ca)) &&
	    pki__extension_add(cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
	    pki__extension_add(cert, ca, NID_key_usage, "critical,digitalSignature") &&
	    pki__extension_add(cert, ca, NID_ext_key_usage, "serverAuth,clientAuth") &&
	    pki__extension_add(cert, ca, NID_subject_alt_name, san) &&
	    pki__extension_add(cert, ca, NID_authority_key_identifier, "keyid") && X509_sign(cert, ca_key, EVP_sha256()) > 0)
		return cert;
	X509_free(cert);
	return NULL;
}

/* The request must be signed by its own key, of the one kind that we use. */
static EVP_PKEY *pki__request_key(X509_REQ *request)
{
	EVP_PKEY *key = request ? X509_REQ_get0_pubkey(request) : NULL;

	if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_bits(key) != 256)
		return NULL;
	return X509_REQ_verify(request, key) == 1 ? key : NULL;
}

int pki_sign(const struct buf *ca_cert, const struct buf *ca_key, const struct buf *csr, const char *host,
	     const char *cluster_uuid, struct buf *ret_cert, struct err *err)
{
	X509_REQ *request = pki__read_request(csr);
	EVP_PKEY *request_key = pki__request_key(request);
	EVP_PKEY *key = pki__read_key(ca_key);
	X509 *ca = pki__read_cert(ca_cert);
	X509 *cert = NULL;
	int rc;

	if (!pki_host_name_ok(host))
		rc = err_set(err, EINVAL, "host name '%s': use 1 to %d letters, digits, '-', '.', '_'", host,
			     LIMIT_HOST_NAME_CHARS);
	else if (!request_key)
		rc = err_set(err, EINVAL, "the certificate request of host '%s' is broken, or its key is not EC P-256", host);
	else if (!ca || !key || X509_check_private_key(ca, key) != 1)
		rc = err_set(err, EIO, "the cluster's CA certificate and key cannot be read or do not belong together");
	else if (!(cert = pki__build_host(ca, key, request_key, host, cluster_uuid)) || pki__write_cert(cert, ret_cert) < 0)
		rc = pki__error(err, "cannot sign the host's certificate");
	else
		rc = 0;
	ERR_clear_error();
	X509_free(cert);
	X509_free(ca);
	EVP_PKEY_free(key);
	X509_REQ_free(request);
	return rc;
}

int pki_fingerprint(const struct buf *cert, char ret_hex[65], struct err *err)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	X509 *x = pki__read_cert(cert);
	unsigned len = 0;
	int ok = x && X509_digest(x, EVP_sha256(), digest, &len);

	X509_free(x);
	ERR_clear_error();
	if (!ok)
		return err_set(err, EINVAL, "this is no certificate in PEM form");
	for (unsigned i = 0; i < len; i++)
		snprintf(ret_hex + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

/* The only entry of this kind in the subject, as a C string without embedded zeros; NULL if it is otherwise. */
static char *pki__subject_entry(X509 *cert, int nid)
{
	X509_NAME *name = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(name, nid, -1);
	unsigned char *utf8 = NULL;
	char *text = NULL;
	int len;

	if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0)
		return NULL;
	len = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
	if (len > 0 && strlen((char *)utf8) == (size_t)len)
		text = str_dup((char *)utf8);
	OPENSSL_free(utf8);
	return text;
}

static bool pki__has_dns_name(X509 *cert, const char *host)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	size_t len = strlen(host);
	bool found = false;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);

		found = n->type == GEN_DNS && (size_t)ASN1_STRING_length(n->d.dNSName) == len &&
			memcmp(ASN1_STRING_get0_data(n->d.dNSName), host, len) == 0;
	}
	GENERAL_NAMES_free(names);
	return found;
}

int pki_certificate_names(X509 *cert, char **ret_host, char **ret_cluster_uuid, struct err *err)
{
	char *host = pki__subject_entry(cert, NID_commonName);
	char *uuid = pki__subject_entry(cert, NID_organizationName);

	if (!host || !uuid || !pki_host_name_ok(host) || !pki__has_dns_name(cert, host)) {
		free(host);
		free(uuid);
		return err_set(err, EACCES, "the certificate is not one of a Gantry host (name and cluster are not both in it)");
	}
	*ret_host = host;
	*ret_cluster_uuid = uuid;
	return 0;
}
