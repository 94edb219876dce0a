//! Memory maps: read-only weight files, and the zeroed page buffers under packed weights and the KV pool.
#![expect(unsafe_code, reason = "mapping a file and viewing raw bytes as numbers are unsafe; both happen only here")]

use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use crate::KernelError;
use crate::cpu::simd::element::Element;

/// A weight file mapped read-only. Pages are read from disk when they are first touched.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// The file must not be changed or truncated while it is mapped: a truncated mapping kills the process with
    /// SIGBUS when the missing part is read. That is why only model weights are mapped, never caches.
    ///
    /// # Errors
    /// [`KernelError::MapFile`] when the file cannot be opened, measured or mapped.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let failed = |source| KernelError::MapFile { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is private and read-only, so this process never writes through it. Another process could
        // change or truncate the file underneath; changed bytes are only ever read as numbers (every bit pattern is a
        // valid one), and truncation is documented above: weights are files that nobody rewrites in place.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self { map: Some(map) })
    }

    /// The bytes of the file.
    pub fn as_bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

/// Buffers from this size on ask for huge pages: fewer TLB misses while weights and KV blocks are streamed.
const HUGE_PAGES_FROM_BYTES: usize = 4 << 20;

/// Bytes past the end that may be read: a kernel loads whole vectors of up to 64 bytes and drops the lanes it does not
/// need.
pub(crate) const READ_SLACK_BYTES: usize = 64;

/// Page-aligned memory, zeroed by the operating system when it is first touched, with [`READ_SLACK_BYTES`] behind it.
#[derive(Debug)]
pub(crate) struct PageBuffer {
    map: MmapMut,
    num_bytes: usize,
}

impl PageBuffer {
    /// Reserves `num_bytes` zero bytes.
    pub fn zeroed(num_bytes: usize, what: &'static str) -> Result<Self, KernelError> {
        let failed = |source| KernelError::Allocate { what, bytes: num_bytes, source };
        let reserved = num_bytes.checked_add(READ_SLACK_BYTES).ok_or(KernelError::Overflow { what })?;
        let map = MmapMut::map_anon(reserved).map_err(failed)?;
        #[cfg(target_os = "linux")]
        if num_bytes >= HUGE_PAGES_FROM_BYTES {
            // Only a hint: a kernel without transparent huge pages refuses it, and nothing else changes.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, num_bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.map[..self.num_bytes]
    }

    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.num_bytes]
    }

    /// The buffer as elements.
    pub fn elements<E: Element>(&self) -> &[E] {
        &self.elements_and_slack()[..self.num_bytes / size_of::<E>()]
    }

    /// The buffer as elements, and [`READ_SLACK_BYTES`] of zeros behind it.
    pub fn elements_and_slack<E: Element>(&self) -> &[E] {
        // SAFETY: pages are aligned beyond any element, the length is rounded down to whole elements inside the map,
        // and `Element` promises that every bit pattern is a value.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<E>(), self.map.len() / size_of::<E>()) }
    }

    /// The buffer as elements, to write.
    pub fn elements_mut<E: Element>(&mut self) -> &mut [E] {
        let bytes = self.as_bytes_mut();
        // SAFETY: as in `elements_and_slack`; the exclusive borrow of `self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<E>(), bytes.len() / size_of::<E>()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mapped_file_reads_as_its_bytes_and_an_empty_one_as_none() {
        let folder = std::env::temp_dir().join(format!("kernels-mmap-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temporary folder");
        let path = folder.join("weights");
        File::create(&path).and_then(|mut f| f.write_all(b"some weights")).expect("write");
        assert_eq!(MappedFile::open(&path).expect("map").as_bytes(), b"some weights");
        File::create(&path).expect("truncate");
        assert_eq!(MappedFile::open(&path).expect("map empty").as_bytes(), b"");
        std::fs::remove_dir_all(&folder).expect("clean up");
        assert!(matches!(MappedFile::open(&path), Err(KernelError::MapFile { .. })));
    }

    #[test]
    fn a_page_buffer_is_zero_and_writable_as_elements() {
        let mut buffer = PageBuffer::zeroed(10, "test").expect("allocate");
        assert_eq!(buffer.as_bytes(), &[0; 10]);
        assert_eq!(buffer.elements::<f32>().len(), 2);
        buffer.elements_mut::<f32>()[1] = 1.0;
        assert_eq!(&buffer.as_bytes()[4..8], &1f32.to_le_bytes());
    }
}
