// Makes a screenshot small: fewer pixels, and at most 256 colours in a palette.
import zlib from 'node:zlib';

// In the browser, which knows how to read a PNG.
async function reduce({ png, scale }) {
  const bytes = Uint8Array.from(atob(png), one => one.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
  const canvas = new OffscreenCanvas(Math.round(image.width * scale), Math.round(image.height * scale));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  // Colours of 16 steps each; the most frequent are the palette, and the others go to the nearest of it.
  const key = at => ((data[at] >> 4) << 8) | ((data[at + 1] >> 4) << 4) | (data[at + 2] >> 4);
  const cells = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const cell = cells.get(key(at)) ?? { count: 0, sum: [0, 0, 0] };
    cell.count += 1;
    for (const part of [0, 1, 2]) cell.sum[part] += data[at + part];
    cells.set(key(at), cell);
  }
  const mean = cell => cell.sum.map(sum => Math.round(sum / cell.count));
  const palette = [...cells.values()].sort((a, b) => b.count - a.count).slice(0, 256).map(mean);
  const far = (a, b) => a.reduce((sum, part, at) => sum + (part - b[at]) ** 2, 0);
  const nearest = color => palette.reduce((best, one, at) => (far(one, color) < far(palette[best], color) ? at : best), 0);
  const index = new Map([...cells].map(([name, cell]) => [name, nearest(mean(cell))]));
  const indices = Array.from({ length: data.length / 4 }, (_, at) => index.get(key(at * 4)));
  return { width: canvas.width, height: canvas.height, palette, indices };
}

function crc(bytes) {
  let sum = ~0;
  for (const one of bytes) {
    sum ^= one;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name), data]), length = Buffer.alloc(4), sum = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc(body));
  return Buffer.concat([length, body, sum]);
}

function encode({ width, height, palette, indices }) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3], 8); // 8 bits a pixel, of a palette
  const lines = Buffer.alloc((width + 1) * height);
  for (let y = 0; y < height; y++) lines.set(indices.slice(y * width, (y + 1) * width), y * (width + 1) + 1);
  const parts = [['IHDR', header], ['PLTE', Buffer.from(palette.flat())], ['IDAT', zlib.deflateSync(lines, { level: 9 })], ['IEND', Buffer.alloc(0)]];
  return Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), ...parts.map(([name, data]) => chunk(name, data))]);
}

export async function small(page, png, scale) {
  return encode(await page.evaluate(reduce, { png: png.toString('base64'), scale }));
}
