/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef IMGSTREAM_HELPERS_BLK_H
#define IMGSTREAM_HELPERS_BLK_H

#include <linux/bio.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/hdreg.h>
#include <linux/mempool.h>
#include <linux/percpu-refcount.h>

void imgstream_bio_set_dev(struct bio *bio, struct block_device *bdev);
void imgstream_bio_copy_from(struct bio *bio, unsigned int off, struct page *page,
			     unsigned int page_off, unsigned int len);
void imgstream_bio_copy_to(struct bio *bio, unsigned int off, struct page *page,
			   unsigned int page_off, unsigned int len);

struct request *imgstream_blk_mq_rq_from_pdu(void *pdu);
void *imgstream_blk_mq_rq_to_pdu(struct request *rq);
int imgstream_disk_getgeo(struct gendisk *disk, struct block_device *below,
			  struct hd_geometry *geo);
void imgstream_queue_limits_stack(struct queue_limits *lim, struct block_device *bdev);
unsigned int imgstream_bdev_max_discard_sectors(struct block_device *bdev);
unsigned int imgstream_bdev_write_zeroes_sectors(struct block_device *bdev);
unsigned int imgstream_bdev_logical_block_size(struct block_device *bdev);
int imgstream_bdev_drop_partitions(struct block_device *bdev);
int imgstream_bdev_find_partitions(struct block_device *bdev);
struct device *imgstream_disk_to_dev(struct gendisk *disk);
void imgstream_disk_scan_partitions(struct device *dev);

mempool_t *imgstream_page_pool_create(int pages);
mempool_t *imgstream_kmalloc_pool_create(int count, size_t bytes);

void imgstream_percpu_ref_get(struct percpu_ref *ref);
bool imgstream_percpu_ref_tryget_live(struct percpu_ref *ref);
void imgstream_percpu_ref_put(struct percpu_ref *ref);
void imgstream_percpu_ref_kill(struct percpu_ref *ref);

#ifdef __BINDGEN__
const gfp_t RUST_CONST_HELPER_GFP_NOIO = GFP_NOIO;
const blk_mode_t RUST_CONST_HELPER_BLK_OPEN_READ = BLK_OPEN_READ;
const blk_mode_t RUST_CONST_HELPER_BLK_OPEN_WRITE = BLK_OPEN_WRITE;
const blk_opf_t RUST_CONST_HELPER_REQ_OP_MASK = REQ_OP_MASK;
const blk_opf_t RUST_CONST_HELPER_REQ_PREFLUSH = REQ_PREFLUSH;
const blk_opf_t RUST_CONST_HELPER_REQ_FUA = REQ_FUA;
const blk_opf_t RUST_CONST_HELPER_REQ_NOWAIT = REQ_NOWAIT;
const blk_opf_t RUST_CONST_HELPER_REQ_RAHEAD = REQ_RAHEAD;
const blk_opf_t RUST_CONST_HELPER_REQ_POLLED = REQ_POLLED;
const blk_opf_t RUST_CONST_HELPER_REQ_DRV = REQ_DRV;
const blk_opf_t RUST_CONST_HELPER_REQ_SYNC = REQ_SYNC;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_WRITE_CACHE = BLK_FEAT_WRITE_CACHE;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_FUA = BLK_FEAT_FUA;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_NOWAIT = BLK_FEAT_NOWAIT;
const blk_features_t RUST_CONST_HELPER_BLK_FEAT_IO_STAT = BLK_FEAT_IO_STAT;
const blk_status_t RUST_CONST_HELPER_BLK_STS_NOTSUPP = BLK_STS_NOTSUPP;
const blk_status_t RUST_CONST_HELPER_BLK_STS_IOERR = BLK_STS_IOERR;
const blk_status_t RUST_CONST_HELPER_BLK_STS_AGAIN = BLK_STS_AGAIN;
#endif

#endif
