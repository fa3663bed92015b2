autocmd BufRead,BufNewFile *.ucl setfiletype ucl
