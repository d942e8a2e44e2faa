import react from '@vitejs/plugin-react';

export default {
  plugins: [react()],
  base: './',
  define: { 'process.env': {}, global: 'globalThis' },
  build: { target: 'es2022', minify: false, sourcemap: false, chunkSizeWarningLimit: 1e6 },
};
