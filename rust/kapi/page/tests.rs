// SPDX-License-Identifier: GPL-2.0-only

//! Tests of buffers and reserves.

use kernel::prelude::*;

#[kunit_tests(imgstream_page)]
mod suite {
    use super::super::*;
    use crate::kapi::testing::every;

    const PAGES: usize = 3;
    const BYTES: usize = PAGES * PAGE_BYTES;

    /// Round the borders of pages, of the buffer and of numbers.
    const BORDERS: [usize; 12] = [
        0,
        1,
        PAGE_BYTES - 1,
        PAGE_BYTES,
        PAGE_BYTES + 1,
        BYTES - PAGE_BYTES,
        BYTES - 1,
        BYTES,
        BYTES + 1,
        usize::MAX - BYTES,
        usize::MAX - 1,
        usize::MAX,
    ];

    /// Every offset with every length.
    fn ranges() -> impl Iterator<Item = (usize, usize)> {
        let with_each = |offset| BORDERS.into_iter().map(move |len| (offset, len));
        BORDERS.into_iter().flat_map(with_each)
    }

    /// What is right for a range: where it ends, or `EINVAL`.
    fn end_of((offset, len): (usize, usize)) -> Result<usize> {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        (end <= BYTES).then_some(end).ok_or(EINVAL)
    }

    fn buffer() -> Result<PageBuf> {
        PageBuf::new(&PagePool::new(PAGES)?, PAGES)
    }

    /// Bytes of which neighbours and pages differ.
    fn pattern() -> Result<KVec<u8>> {
        let mut bytes = KVec::with_capacity(BYTES, GFP_KERNEL)?;
        for at in 0..BYTES {
            bytes.push((at % 251) as u8 | 1, GFP_KERNEL)?;
        }
        Ok(bytes)
    }

    fn contents(buf: &PageBuf) -> Result<KVec<u8>> {
        let mut bytes = KVec::from_elem(0, buf.len(), GFP_KERNEL)?;
        buf.copy_to_slice(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether `change` makes `with` of the bytes of `range`, and nothing else of what the buffer holds.
    fn changes_only(
        buf: &PageBuf,
        range: (usize, usize),
        with: u8,
        change: impl FnOnce() -> Result,
    ) -> Result<bool> {
        let mut expected = pattern()?;
        buf.copy_from_slice(0, &expected)?;
        let end = end_of(range);
        let result = change();
        if let Some(bytes) = end.ok().and_then(|end| expected.get_mut(range.0..end)) {
            bytes.fill(with);
        }
        Ok(result == end.map(|_| ()) && *contents(buf)? == *expected)
    }

    #[test]
    fn what_is_copied_in_is_there_and_nothing_else_has_changed() -> Result {
        let buf = buffer()?;
        let source = KVec::from_elem(0xaau8, BYTES + 1, GFP_KERNEL)?;
        let possible = ranges().filter(|&(_, len)| len <= source.len());
        assert!(every(possible, |&(offset, len)| {
            let from = source.get(..len).unwrap_or(&[]);
            changes_only(&buf, (offset, len), 0xaa, || {
                buf.copy_from_slice(offset, from)
            }) == Ok(true)
        }));
        Ok(())
    }

    #[test]
    fn what_is_zeroed_is_zero_and_nothing_else_has_changed() -> Result {
        let buf = buffer()?;
        assert!(every(ranges(), |&(offset, len)| {
            changes_only(&buf, (offset, len), 0, || buf.fill_zero(offset, len)) == Ok(true)
        }));
        Ok(())
    }

    #[test]
    fn what_is_copied_out_is_what_is_there() -> Result {
        let (buf, bytes) = (buffer()?, pattern()?);
        buf.copy_from_slice(0, &bytes)?;
        let mut copy = KVec::from_elem(0u8, BYTES + 1, GFP_KERNEL)?;
        let possible = ranges().filter(|&(_, len)| len <= BYTES + 1);
        assert!(every(possible, |&(offset, len)| {
            copy.fill(0);
            let to = copy.get_mut(..len).unwrap_or(&mut []);
            match (buf.copy_to_slice(offset, to), end_of((offset, len))) {
                (Ok(()), Ok(end)) => bytes.get(offset..end) == Some(to),
                (Err(error), Err(expected)) => error == expected && to.iter().all(|&b| b == 0),
                _ => false,
            }
        }));
        Ok(())
    }

    #[test]
    fn parts_lie_in_a_page_and_follow_each_other() -> Result {
        let buf = buffer()?;
        assert!(every(ranges(), |&(offset, len)| {
            let mut at = offset;
            let result = buf.each_part(offset, len, |page, part| {
                let expected = buf.pages().get(at / PAGE_BYTES).ok_or(EIO)?;
                let right = page.as_ptr() == expected.as_ptr()
                    && part.offset == at % PAGE_BYTES
                    && part.len > 0
                    && part.offset + part.len <= PAGE_BYTES;
                at = at.saturating_add(part.len);
                right.then_some(()).ok_or(EIO)
            });
            match end_of((offset, len)) {
                Ok(end) => result.is_ok() && at == end,
                Err(error) => result == Err(error) && at == offset,
            }
        }));
        Ok(())
    }

    #[test]
    fn a_part_that_fails_is_the_last() -> Result {
        let buf = buffer()?;
        let mut parts = 0;
        let result = buf.each_part(0, BYTES, |_, _| {
            parts += 1;
            (parts < 2).then_some(()).ok_or(EIO)
        });
        assert!(result == Err(EIO) && parts == 2);
        Ok(())
    }

    /// Whether buffers of the pool have up to `PAGES` pages.
    fn has_buffers(pool: &Arc<PagePool>) -> bool {
        let table = [
            (0, true),
            (1, true),
            (PAGES, true),
            (PAGES + 1, false),
            (usize::MAX, false),
        ];
        every(table, |&(pages, fits)| match PageBuf::new(pool, pages) {
            Ok(buf) => fits && buf.len() == pages * PAGE_BYTES && buf.pages().len() == pages,
            Err(error) => !fits && error == EINVAL,
        })
    }

    #[test]
    fn a_buffer_is_at_most_as_long_as_the_longest() -> Result {
        assert!(has_buffers(&PagePool::new(PAGES)?));
        assert!(has_buffers(&PagePool::with_longest(2 * PAGES + 1, PAGES)?));
        Ok(())
    }

    #[test]
    fn pools_have_a_size_that_can_be() {
        assert!(PagePool::new(i32::MAX as usize + 1).is_err());
        assert!(PagePool::new(usize::MAX).is_err());
        assert!(PagePool::with_longest(1, 2).is_err());
    }

    fn free_pages() -> u64 {
        let mut info = bindings::sysinfo::default();
        // SAFETY: Fills in a structure of ours.
        unsafe { bindings::si_meminfo(&mut info) };
        info.freeram as u64
    }

    #[test]
    fn pages_come_back() -> Result {
        const RESERVE: usize = 64;
        const TIMES: usize = 128;
        let pool = PagePool::new(RESERVE)?;
        drop(PageBuf::new(&pool, RESERVE)?);
        let before = free_pages();
        for _ in 0..TIMES {
            drop(PageBuf::new(&pool, RESERVE)?.clone());
        }
        let lost = before.saturating_sub(free_pages());
        // Others take and give pages meanwhile, but not 16 MiB.
        assert!(lost < (RESERVE * TIMES / 2) as u64);
        Ok(())
    }

    #[test]
    fn clones_share_the_pages_and_keep_them() -> Result {
        let buf = buffer()?;
        let clone = buf.clone();
        buf.copy_from_slice(PAGE_BYTES - 1, b"shared")?;
        drop(buf);
        let mut bytes = [0; 6];
        clone.copy_to_slice(PAGE_BYTES - 1, &mut bytes)?;
        assert_eq!(&bytes, b"shared");
        Ok(())
    }
}
