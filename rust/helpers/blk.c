// SPDX-License-Identifier: GPL-2.0-only
/* Inline functions and macros of the block layer as real functions, for Rust. */

#include <linux/highmem.h>

#include "blk.h"

void imgstream_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

/* Copies [off, off + len) of the bio's data into a page; the caller keeps both ranges inside. */
void imgstream_bio_copy_from(struct bio *bio, unsigned int off, struct page *page,
			     unsigned int page_off, unsigned int len)
{
	struct bvec_iter iter = bio->bi_iter;
	char *dst = kmap_local_page(page);

	bio_advance_iter(bio, &iter, off);
	while (len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);
		unsigned int n = min(bv.bv_len, len);

		memcpy_from_page(dst + page_off, bv.bv_page, bv.bv_offset, n);
		bio_advance_iter_single(bio, &iter, n);
		page_off += n;
		len -= n;
	}
	kunmap_local(dst);
}

/* Copies out of a page into [off, off + len) of the bio's data. */
void imgstream_bio_copy_to(struct bio *bio, unsigned int off, struct page *page,
			   unsigned int page_off, unsigned int len)
{
	struct bvec_iter iter = bio->bi_iter;
	char *src = kmap_local_page(page);

	bio_advance_iter(bio, &iter, off);
	while (len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);
		unsigned int n = min(bv.bv_len, len);

		memcpy_to_page(bv.bv_page, bv.bv_offset, src + page_off, n);
		bio_advance_iter_single(bio, &iter, n);
		page_off += n;
		len -= n;
	}
	kunmap_local(src);
}

struct request *imgstream_blk_mq_rq_from_pdu(void *pdu)
{
	return blk_mq_rq_from_pdu(pdu);
}

void *imgstream_blk_mq_rq_to_pdu(struct request *rq)
{
	return blk_mq_rq_to_pdu(rq);
}

/*
 * The geometry of the disk below, with as many cylinders as this one has: partitioning tools
 * write it into tables that stand on that disk itself after a commit.
 */
int imgstream_disk_getgeo(struct gendisk *disk, struct block_device *below,
			  struct hd_geometry *geo)
{
	struct gendisk *lower = below->bd_disk;
	unsigned long start = geo->start;
	unsigned int per_cylinder;
	int err;

	if (!lower->fops->getgeo)
		return -ENOTTY;
	err = lower->fops->getgeo(lower, geo);
	/* SCSI reads the partition table for that, into a cache that our writes go past. */
	invalidate_bdev(below);
	if (err)
		return err;
	geo->start = start;
	per_cylinder = geo->heads * geo->sectors;
	if (per_cylinder)
		geo->cylinders = min_t(u64, div_u64(get_capacity(disk), per_cylinder), U16_MAX);
	return 0;
}

void imgstream_queue_limits_stack(struct queue_limits *lim, struct block_device *bdev)
{
	queue_limits_stack_bdev(lim, bdev, 0, "imgstream");
}

unsigned int imgstream_bdev_max_discard_sectors(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

unsigned int imgstream_bdev_write_zeroes_sectors(struct block_device *bdev)
{
	return bdev_write_zeroes_sectors(bdev);
}

/* Forgets the partitions of a disk and reads its table, unless it says that it wants no scan. */
static int disk_changed(struct gendisk *disk)
{
	int err;

	mutex_lock(&disk->open_mutex);
	err = bdev_disk_changed(disk, false);
	mutex_unlock(&disk->open_mutex);
	return err;
}

/*
 * Forgets the partitions of a disk, all or, if one is open, none. BLKRRPART needs the claim on
 * the disk, so they do not come back while the caller has that. bdev_disk_changed() would read
 * the table at once, unless the disk says that it wants no scan. Who has said so himself (nvme
 * multipath, loop) keeps that.
 */
int imgstream_bdev_drop_partitions(struct block_device *bdev)
{
	struct gendisk *disk = bdev->bd_disk;
	bool no_scan;
	int err;

	if (bdev_is_partition(bdev) || (disk->flags & GENHD_FL_NO_PART))
		return 0;
	mutex_lock(&disk->open_mutex);
	no_scan = test_and_set_bit(GD_SUPPRESS_PART_SCAN, &disk->state);
	err = bdev_disk_changed(disk, false);
	if (!no_scan)
		clear_bit(GD_SUPPRESS_PART_SCAN, &disk->state);
	mutex_unlock(&disk->open_mutex);
	return err;
}

/* Undoes that. */
int imgstream_bdev_find_partitions(struct block_device *bdev)
{
	struct gendisk *disk = bdev->bd_disk;

	if (bdev_is_partition(bdev) || (disk->flags & GENHD_FL_NO_PART))
		return 0;
	return disk_changed(disk);
}

unsigned int imgstream_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

struct device *imgstream_disk_to_dev(struct gendisk *disk)
{
	return disk_to_dev(disk);
}

/* As nvme_partition_scan_work() does. Nothing happens to a disk that is gone. */
void imgstream_disk_scan_partitions(struct device *dev)
{
	struct gendisk *disk = dev_to_disk(dev);

	clear_bit(GD_SUPPRESS_PART_SCAN, &disk->state);
	disk_changed(disk);
}

mempool_t *imgstream_page_pool_create(int pages)
{
	return mempool_create_page_pool(pages, 0);
}

mempool_t *imgstream_kmalloc_pool_create(int count, size_t bytes)
{
	return mempool_create_kmalloc_pool(count, bytes);
}

void imgstream_percpu_ref_get(struct percpu_ref *ref)
{
	percpu_ref_get(ref);
}

bool imgstream_percpu_ref_tryget_live(struct percpu_ref *ref)
{
	return percpu_ref_tryget_live(ref);
}

void imgstream_percpu_ref_put(struct percpu_ref *ref)
{
	percpu_ref_put(ref);
}

void imgstream_percpu_ref_kill(struct percpu_ref *ref)
{
	percpu_ref_kill(ref);
}
